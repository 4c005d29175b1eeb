"""A training run: processes, steps, epochs, checkpoints and log. Only `deploy` and the verbs may import it."""
