"""Offline inference from files to files: preprocess images, infer logits, score them. Only the verbs and `deploy` may
import it."""
