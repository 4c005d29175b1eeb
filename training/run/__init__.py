"""A training run: processes, steps, epochs, checkpoints and log. Only the rooms above it and the verbs may enter."""
