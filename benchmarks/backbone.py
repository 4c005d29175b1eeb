"""How much the features of a bundle know about other photos: logistic regression on them, in five folds.

python -m benchmarks.backbone FOLDER --model BUNDLE [BUNDLE ...] [--sizes 64 96 128]

FOLDER has one folder of photos for each class. The features are what enters the classifier of the fp32 ONNX artifact:
the mean of the last feature map, so that every image size that the strides divide will do. The penalty is chosen
without the fold that is measured. Prints the accuracy in percent for each bundle and size, with the standard deviation
over the folds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.preprocess import images_in, preprocess
from models.store import Bundle, open_bundle
from training.own.backbone import Backbone
from training.own.classifier import folds
from training.own.classifier.head import cross_validate, of_ids

SEED = 0


def features(bundle: Bundle, photos: list[Path], size: int) -> NDArray[np.float32]:
    """(N, channels)"""
    backbone, spec = Backbone(bundle), bundle.manifest.preprocess.model_copy(update={"input_size": size})
    return np.concatenate([backbone.compute(preprocess(path.read_bytes(), spec)[None]) for path in photos])


def accuracies(rows: NDArray[np.float32], names: list[str]) -> NDArray[np.float64]:
    """Accuracy in each of the folds."""
    labels = of_ids(names, tuple(sorted({*names})))
    parts = folds.assign(labels, np.arange(len(labels)), folds.FOLDS, SEED)
    right = cross_validate(rows, labels, parts, balanced=False).logits.argmax(axis=1) == labels
    return np.array([right[parts == part].mean() for part in range(folds.FOLDS)])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbone", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", required=True, metavar="BUNDLE")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    flags = parser.parse_args()
    photos = sorted(path for folder in flags.folder.iterdir() if folder.is_dir() for path in images_in(folder))
    labels = [path.parent.name for path in photos]
    for name in flags.model:
        for size in flags.sizes:
            found = accuracies(features(open_bundle(name), photos, size), labels) * 100
            print(f"{name} at {size}: {found.mean():.1f} (±{found.std():.1f} over {folds.FOLDS} folds)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
