"""A classifier on the features of photos, and its accuracy. Only `own` may import it."""
