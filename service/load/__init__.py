"""The load generator behind `repvgg bench`, and the capacity arithmetic behind `repvgg doctor --plan`.

Only `cli` may enter.
"""
