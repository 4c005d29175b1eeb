"""The network on one runtime or another: their table, the choice between them and their checks.

`classify` and the rooms above it may enter.
"""
