"""The user's photos and labels: checked one by one, with those that belong together. Only `own` may import it."""
