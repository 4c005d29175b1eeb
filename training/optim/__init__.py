"""Losses, loss scale, optimizers and learning rates. `run` and the rooms above it may import it."""
