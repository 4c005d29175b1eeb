"""The upper limit for serving: JPEG bytes -> top-5 in one process on all cores, without a server.

python -m benchmarks.pipeline FOLDER --model BUNDLE [--engine NAME] [--precision P] [--batches 1 4] [--rounds N]
                           [--json]

One thread per CPU decodes its own images and passes them, batch by batch, to a shared engine whose calls use one thread
each, so that no thread waits for another. Prints images/s of the whole pipeline, of preprocessing alone and of the
engine alone, measured in turn in one run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from models.preprocess import images_in, preprocess
from models.scores.topk import softmax, top_k
from models.store import open_bundle
from service.engines.loading import load_engine
from service.machine.limits import usable_cpus


def in_threads(work: Callable[[Sequence[bytes]], None], photos: Sequence[bytes], threads: int) -> float:
    """images/s of `work` on all photos, distributed over the threads."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(work, [photos[index::threads] for index in range(threads)]))
        return len(photos) / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="repvgg-small-tinyimagenet", metavar="BUNDLE")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object at the end: batch size -> the three speeds"
    )
    flags = parser.parse_args()
    bundle, threads = open_bundle(flags.model), usable_cpus()
    streams: dict[str, int] = {"slots": threads} if flags.engine == "openvino" else {}
    engine = load_engine(flags.engine, bundle, flags.precision, threads=threads if streams else 1, options=streams)
    photos = [path.read_bytes() for path in sorted(images_in(flags.folder))[: flags.images]]
    spec, labels = bundle.manifest.preprocess, bundle.labels

    def pixels(mine: Sequence[bytes]) -> None:
        for encoded in mine:
            preprocess(encoded, spec)

    def alone(batch: int) -> Callable[[Sequence[bytes]], None]:
        tensor = np.zeros((batch, 3, spec.input_size, spec.input_size), np.float32)

        def run(mine: Sequence[bytes]) -> None:
            for _ in range(0, len(mine), batch):
                engine.infer(tensor)

        return run

    def whole(batch: int) -> Callable[[Sequence[bytes]], None]:
        def run(mine: Sequence[bytes]) -> None:
            for start in range(0, len(mine), batch):
                tensors = np.stack([preprocess(encoded, spec) for encoded in mine[start : start + batch]])
                for row in engine.infer(tensors):
                    top_k(softmax(row), labels, min(5, len(labels)))

        return run

    print(
        f"{flags.model} on {engine.name} {engine.precision}, {len(photos)} photos, {threads} threads; images/s, medians"
    )
    medians = {}
    for batch in flags.batches:
        kinds = {"whole": whole(batch), "pixels": pixels, "engine": alone(batch)}
        for work in kinds.values():
            in_threads(work, photos[: 2 * threads * batch], threads)
        found = [{kind: in_threads(work, photos, threads) for kind, work in kinds.items()} for _ in range(flags.rounds)]
        medians[batch] = {kind: median(speeds[kind] for speeds in found) for kind in kinds}
        print(f"batch {batch}: {', '.join(f'{kind} {v:.1f}' for kind, v in medians[batch].items())}", flush=True)
    if flags.json:
        print(json.dumps(medians))
    return 0


if __name__ == "__main__":
    sys.exit(main())
