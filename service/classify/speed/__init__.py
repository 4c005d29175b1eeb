"""How long decoding and batches take, as measured at the start and ever since. Only `classify` and `load` may enter."""
