"""The load generator behind `repvgg bench`, and the capacity planning behind `repvgg doctor --plan`.

Only `cli` may import it.
"""
