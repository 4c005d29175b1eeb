"""Image folders and published data sets -> batches. `run`, `deploy` and the verbs may import it."""

from training.data.datasets import open_split
from training.data.pipeline import evaluation_batches, evaluation_spec, train_batches

__all__ = ["evaluation_batches", "evaluation_spec", "open_split", "train_batches"]
