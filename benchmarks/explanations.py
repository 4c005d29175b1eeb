"""What an artifact's second output costs those who do not ask for it: its engine with and without that output.

python -m benchmarks.explanations --model BUNDLE [--engines onnxruntime openvino ncnn] [--batches 1 8] [--rounds N]

The bundle is compared with a copy of itself that lacks features. Both engines take turns batch by batch, so that what
else runs on the machine meets both alike; the figure is the median of the ratios of neighbours. Run it on a quiet
machine: the promise is within 1 %.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from models.explanation.features import without_features
from models.manifest import Artifact
from models.store import Bundle, open_bundle
from models.versions import write_version
from service.engine_table import ENGINES
from service.engines.artifacts import has_artifact
from service.engines.base import Engine, explaining
from service.engines.loading import load_engine
from service.errors import ServiceError


def plain(bundle: Bundle, folder: Path) -> Bundle:
    """The same networks with their logits only."""
    artifacts: list[Artifact] = []
    files: dict[str, bytes | Path] = {}
    for artifact in bundle.manifest.artifacts:
        if artifact.features:
            content = without_features(onnx.load_model(bundle.path(artifact))).SerializeToString()
            digest = hashlib.sha256(content).hexdigest()
            artifacts.append(artifact.model_copy(update={"sha256": digest, "features": None}))
            files[artifact.file] = content
    return write_version(bundle, folder, artifacts, files)


def seconds(engine: Engine, images: np.ndarray, *, asking: bool) -> float:
    began = time.perf_counter()
    if asking and (source := explaining(engine)):
        source.infer_with_features(images)
    else:
        engine.infer(images)
    return time.perf_counter() - began


def compare(before: Engine, after: Engine, batch: int, rounds: int) -> tuple[float, float, float]:
    """ms for a batch without features; the share that they add for those who do not ask, and for those who do."""
    images = np.random.default_rng(0).standard_normal((batch, 3, after.input_size, after.input_size), np.float32)
    turns = ((before, False), (after, False), (after, True))
    taken: list[list[float]] = []
    for number in range(rounds + 3):
        order = range(3) if number % 2 else (2, 1, 0)  # who comes second finds warmer caches
        found = {at: seconds(turns[at][0], images, asking=turns[at][1]) for at in order}
        taken.append([found[at] for at in range(3)])
    kept = taken[3:]
    return (
        1e3 * median(row[0] for row in kept),
        median(row[1] / row[0] for row in kept) - 1,
        median(row[2] / row[0] for row in kept) - 1,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explanations", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, metavar="BUNDLE")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino", "ncnn"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=300)
    flags = parser.parse_args()
    bundle = open_bundle(flags.model)
    with tempfile.TemporaryDirectory() as store:
        without = plain(bundle, Path(store, bundle.manifest.name, "0"))
        for name in flags.engines:
            for precision in ENGINES[name].precisions:
                if not has_artifact(name, bundle, precision):
                    continue
                try:
                    before, after = (load_engine(name, one, precision, flags.threads) for one in (without, bundle))
                except ServiceError as error:
                    print(f"{name} {precision}: {error}")
                    continue
                for batch in flags.batches:
                    base_ms, silent, asked = compare(before, after, batch, flags.rounds)
                    print(
                        f"{name} {precision}, batch {batch}: {base_ms:.3f} ms; features there {silent:+.2%}, "
                        f"asked for {asked:+.2%}",
                        flush=True,
                    )
                before.close()
                after.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
