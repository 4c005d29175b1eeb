"""One file format a module: bytes -> a Pillow image that is not decoded yet. Only `models.preprocess` enters.

Each `open_` function hands Pillow a file with only what decides about its pixels. Metadata that is odd, damaged or
huge is dropped before a decoder sees it, and what it states (orientation, colour profile) is kept beside the image. A
kind that no decoder here reads correctly is an ImageError that names the kind.
"""
