"""Losses, optimizers, schedules and the loss scale. `run` and up may enter."""
