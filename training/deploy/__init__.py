"""From a checkpoint to a served bundle and to offline inference. Only the verbs may import it."""
