"""The readable record of a run: log.jsonl and its curves. Only `run` and the verbs may import it."""
