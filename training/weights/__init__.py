"""Weights from other projects: readers of their files, tables of their names. `deploy` and the verbs may import it."""
