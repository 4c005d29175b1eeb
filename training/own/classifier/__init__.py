"""A classifier on the features of photos, and how good its answers are. Only `own` may import it."""
