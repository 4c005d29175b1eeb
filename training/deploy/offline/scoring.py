"""Files of logits and a label file -> top-1 and top-5 accuracy.

1. every image of the label file counts, in the same way as in training.eval;
2. an error names the result that is missing, has the wrong size or is not finite.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.deploy.offline.files import RESULT_SUFFIX, read_floats, read_labels
from training.errors import DataError


def score(results: Path, label_file: Path) -> tuple[int, float, float]:
    """-> number of images, top-1 and top-5 as fractions. Raises DataError."""
    num_classes, labels = read_labels(label_file)
    ranks = [_rank(results / f"{name}{RESULT_SUFFIX}", num_classes, label) for name, label in labels.items()]
    top1, top5 = (sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5))
    return len(ranks), top1, top5


def _rank(path: Path, num_classes: int, label: int) -> int:
    """The rank of class `label` among the logits in a file, 0 for the best; of equal logits, the lower class is first.

    Raises DataError.
    """
    logits = read_floats(path)
    if len(logits) != num_classes:
        raise DataError(f"{path} holds {len(logits)} logits, but the label file has {num_classes} classes")
    if not np.isfinite(logits).all():
        raise DataError(f"{path} holds logits that are not finite")
    return int(np.count_nonzero(logits > logits[label]) + np.count_nonzero(logits[:label] == logits[label]))
