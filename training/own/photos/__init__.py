"""Somebody's photos and their labels, looked at one by one, and which belong together. Only `own` may import it."""
