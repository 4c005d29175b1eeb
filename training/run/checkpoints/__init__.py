"""Checkpoints: written, loaded, and what they say of themselves. Only `run`, `deploy` and the verbs may import it."""
