"""Networks of bundles in a run: to start from, and to learn from. Only `run` and `deploy` may import it."""
