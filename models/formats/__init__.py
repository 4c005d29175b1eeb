"""File formats, one module each: encoded bytes -> a Pillow image that is not decoded yet. Only `models.preprocess`
imports this package.

Each `open_` function gives Pillow a file that contains only what determines the pixels. Odd, damaged or huge metadata
is dropped before a decoder sees it. Orientation and colour profile are kept in the image's `info`. A format that no
decoder here reads correctly raises an ImageError that names it.
"""
