"""Checkpoints: written, loaded, and what they say of themselves. Only `run` and the rooms above it may enter."""
