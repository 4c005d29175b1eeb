"""Checkpoints: written, loaded, and what they say about themselves. Only `run`, `deploy` and the verbs may import
it."""
