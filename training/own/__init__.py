"""From a user's photos to a fitted bundle and a report, without MindSpore. Only the verbs may import it."""
