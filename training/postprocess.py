"""python -m training.postprocess --result_path FOLDER --label_path FILE: logits of offline inference -> top-1, top-5.

1. every image of the label file counts, in the same way as in training.eval;
2. an error names the result that is missing, has the wrong size or is not finite.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.deploy.offline.files import LABELS, RESULT_SUFFIX
from training.deploy.offline.scoring import score
from training.errors import Parser, reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    count, top1, top5 = score(flags.result_path, flags.label_path)
    print(f"images: {count}\nTop1 acc: {top1:.4f}\nTop5 acc: {top5:.4f}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training.postprocess", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--result_path",
        type=Path,
        required=True,
        metavar="FOLDER",
        help=f"folder with the <name>{RESULT_SUFFIX} of every image, written by training.infer",
    )
    parser.add_argument(
        "--label_path", type=Path, required=True, metavar="FILE", help=f"the {LABELS} written by training.preprocess"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
