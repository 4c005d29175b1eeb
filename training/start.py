"""python -m training.start PHOTOS --out STORE/NAME/1: from a folder of photos to a model that can be served.

PHOTOS holds one folder of photos for each class, perhaps below train, val and test, or is a CSV or Parquet file with
columns path and label, and if you like split and group.

1. what is wrong with the photos is said before anything is fitted: broken files, copies, leaks, classes that are small;
2. the accuracy is measured on photos that were not fitted on, and printed with its interval;
3. the bundle passes its golden check before it appears, and the two lines that serve it are printed;
4. --audit looks for what is wrong with photos and labels, and writes no bundle;
5. a classifier on the features of a bundle needs no MindSpore.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.errors import ConfigError, Parser, reporting_errors

DEFAULT_BUNDLE = "repvgg-small-tinyimagenet"


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    if not flags.audit and flags.out is None:
        raise ConfigError("--out STORE/NAME/1 is missing: the folder of the new bundle (or give --audit to only look)")
    if not flags.minutes > 0:
        raise ConfigError(f"--minutes {flags.minutes:g} must be more than 0")
    from training.own.command import (  # scikit-learn takes a second to import: not for a wrong flag
        Options,
        add,
        audit,
        run,
    )

    name = flags.photos.stem if flags.out is None else "-".join(flags.out.parts[-2:])
    options = Options(
        photos=flags.photos,
        out=flags.out,
        base=flags.base,
        seconds=60 * flags.minutes,
        head_only=flags.head_only,
        group_pattern=flags.group_pattern,
        seed=flags.seed,
        suggestions=flags.suggestions,
        record=flags.record or Path("runs", f"audit-{name}" if flags.audit else name),
    )
    (audit if flags.audit else add if flags.add else run)(
        options, lambda line: print(line, flush=True), started=time.monotonic()
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training.start", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder, CSV or Parquet file")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="new folder STORE/NAME/VERSION for the bundle, such as models/store/mine/1",
    )
    parser.add_argument(
        "--from",
        dest="base",
        default=DEFAULT_BUNDLE,
        metavar="BUNDLE|FILE.ckpt",
        help="whose network to start from: a folder, name[/version] in the store, or a checkpoint of training.train "
        f"[default: {DEFAULT_BUNDLE}]",
    )
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="time it may take [default: 10]")
    parser.add_argument("--head-only", action="store_true", help="fit a new classifier only, whatever time there is")
    parser.add_argument(
        "--add",
        action="store_true",
        help="add the new classes of PHOTOS to those of the bundle, which stay as they are",
    )
    parser.add_argument("--audit", action="store_true", help="only look for what is wrong with photos and labels")
    parser.add_argument(
        "--group_pattern",
        metavar="REGEX",
        help="photos whose file names have the same match (of the first group) belong together, such as '^([^_]+)_'",
    )
    parser.add_argument(
        "--suggestions", type=Path, metavar="FILE", help="suggestions.csv of an audit: drop and relabel what it says"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FOLDER", help="for report.html and suggestions.csv [default: runs/NAME-VERSION]"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the folds [default: 0]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
