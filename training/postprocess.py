"""python -m training.postprocess --result_path FOLDER --label_path FILE: logits of offline inference -> top-1, top-5.

1. every image of the label file counts, and is counted as training.eval counts it;
2. a missing result, one of a wrong size and one that is not finite are errors that name the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.deploy.offline import LABELS, RESULT_SUFFIX, read_floats, read_labels
from training.errors import DataError, reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.postprocess",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--result_path", type=Path, required=True, metavar="FOLDER", help=f"holds <name>{RESULT_SUFFIX} of every image"
    )
    parser.add_argument(
        "--label_path", type=Path, required=True, metavar="FILE", help=f"{LABELS} in what training.preprocess wrote"
    )
    flags = parser.parse_args(argv)
    num_classes, labels = read_labels(flags.label_path)
    ranks = [rank(flags.result_path / f"{name}{RESULT_SUFFIX}", num_classes, label) for name, label in labels.items()]
    top1, top5 = (sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5))
    print(f"images: {len(ranks)}\nTop1 acc: {top1:.4f}\nTop5 acc: {top5:.4f}")
    return 0


def rank(path: Path, num_classes: int, label: int) -> int:
    """Place of class `label` among the logits of a result file, 0 first; of equal ones the lower class first.

    Raises DataError.
    """
    logits = read_floats(path)
    if len(logits) != num_classes:
        raise DataError(f"{path} holds {len(logits)} logits, the label file has {num_classes} classes")
    if not np.isfinite(logits).all():
        raise DataError(f"{path} holds logits that are not finite")
    return int(np.count_nonzero(logits > logits[label]) + np.count_nonzero(logits[:label] == logits[label]))


if __name__ == "__main__":
    sys.exit(main())
