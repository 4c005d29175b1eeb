"""How much the features of a bundle know about other photos: logistic regression on them, in five folds.

python -m benchmarks.backbone FOLDER --model BUNDLE [BUNDLE ...] [--sizes 64 96 128]

FOLDER has one folder of photos for each class. The features are what enters the classifier of the fp32 ONNX artifact:
the mean of the last feature map, so that every image size that the strides divide will do. The penalty is chosen by
cross-validation within the training folds. Prints the accuracy in percent for each
bundle and size, with the standard deviation over the folds. Uses one thread an operation, so it repeats exactly.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.preprocess import images_in, preprocess
from models.store import Bundle, open_bundle

FOLDS, SEED = 5, 0
PENALTIES = np.logspace(-4, 1, 8)


def backbone(bundle: Bundle) -> onnxruntime.InferenceSession:
    """The network up to the input of its classifier, for images of any size."""
    artifact = bundle.artifact(["onnx"], "fp32")
    network = onnx.load(bundle.path(artifact))
    classifier = next(node for node in network.graph.node if artifact.output in node.output)
    for dimension, name in zip(network.graph.input[0].type.tensor_type.shape.dim[2:], ("H", "W"), strict=True):
        dimension.dim_param = name
    del network.graph.output[:]
    network.graph.output.append(onnx.helper.make_tensor_value_info(classifier.input[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])


def features(bundle: Bundle, photos: list[Path], size: int) -> NDArray[np.float32]:
    """(N, channels)"""
    session, spec = backbone(bundle), bundle.manifest.preprocess.model_copy(update={"input_size": size})
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: preprocess(path.read_bytes(), spec)[None]})[0] for path in photos]
    return np.concatenate(rows).reshape(len(photos), -1)


def accuracies(rows: NDArray[np.float32], labels: list[str]) -> NDArray[np.float64]:
    """Accuracy in each of the folds."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(classifier, {"logisticregression__C": PENALTIES}, cv=FOLDS)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    found: NDArray[np.float64] = cross_val_score(search, rows, labels, cv=folds)
    return found


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
            print(f"{name} at {size}: {found.mean():.1f} (±{found.std():.1f} over {FOLDS} folds)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
