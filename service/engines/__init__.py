"""The network on one runtime or another: loading, choosing, checking and restarting engines.

`classify` and the rooms above it may enter.
"""
