"""A training run: where it takes place, its steps, its checkpoints and its record. `deploy` and the verbs may enter."""
