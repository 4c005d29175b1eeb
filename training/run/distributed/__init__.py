"""The device of a run, and the processes that share its work. Only `run` and the verbs may import it."""
