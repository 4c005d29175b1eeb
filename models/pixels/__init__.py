"""Steps of `models.preprocess`: colours, resizing, and a hint if a file has no pixels. Anyone may convert colours."""
