"""What a run leaves to read: log.jsonl and its curves. Only `run` and the verbs may import it."""
