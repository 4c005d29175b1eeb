"""Throughput of the engines alone, by precision, threads and batch size, also as a share of the CPU's peak.

python -m benchmarks.engines --model BUNDLE [--threads 1 2] [--batches 1 4 16] [--rounds N]

The peak is that of a float32 matrix product (numpy) on the same number of threads, measured next to each result: on a
shared machine only the ratio is meaningful. Precisions below float32 exceed 100 %. Start-up time and memory are
measured in a separate process for each engine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median

import numpy as np
import onnx
from onnx import shape_inference

from benchmarks.serving import resident_mb
from models.errors import ContractError
from models.store import Bundle, open_bundle
from service.engine_table import ENGINES
from service.engines.loading import load_engine
from service.errors import ServiceError

MATRIX = 2048  # rows, columns
SECONDS = 0.4  # of each measurement


def multiply_adds(bundle: Bundle) -> int:
    """Of one image, in convolutions and matrix products, from the shapes that ONNX infers."""
    model = onnx.load_model(bundle.path(bundle.artifact(("onnx",), "fp32")))
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*inferred.value_info, *inferred.output]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    weights = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            total += int(np.prod(weights[node.input[1]]) * np.prod(shapes[node.output[0]][2:]))
    return total


def peak(threads: int) -> float:
    """Multiply-adds per second of a float32 matrix product."""
    program = (
        "import numpy, time; from statistics import median\n"
        f"a = numpy.ones(({MATRIX}, {MATRIX}), numpy.float32); times = []\n"
        "for _ in range(8):\n    began = time.perf_counter(); a @ a; times.append(time.perf_counter() - began)\n"
        "print(median(times))"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return MATRIX**3 / float(done.stdout)


def speed(bundle: Bundle, name: str, precision: str, threads: int, batches: list[int]) -> dict[int, float]:
    """images/s by batch size."""
    engine = load_engine(name, bundle, precision, threads)
    found = {}
    for batch in batches:
        images = np.random.default_rng(0).standard_normal((batch, 3, engine.input_size, engine.input_size), np.float32)
        engine.infer(images)
        times, until = [], time.perf_counter() + SECONDS
        while len(times) < 3 or time.perf_counter() < until:
            began = time.perf_counter()
            engine.infer(images)
            times.append(time.perf_counter() - began)
        found[batch] = batch / median(times)
    engine.close()
    return found


def start(model: str, name: str, precision: str) -> str:
    """Time to open the engine, time of the first image, and added resident memory; run it in a separate process."""
    bundle = open_bundle(model)
    before_mb = resident_mb()
    began = time.perf_counter()
    engine = load_engine(name, bundle, precision, 1)
    opened = time.perf_counter()
    engine.infer(np.zeros((1, 3, engine.input_size, engine.input_size), np.float32))
    first = time.perf_counter()
    more_mb = resident_mb() - before_mb
    return f"{opened - began:.2f} s to open, {1e3 * (first - opened):.0f} ms for the first image, {more_mb:.0f} MB more"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, metavar="BUNDLE")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--start", nargs=2, metavar=("ENGINE", "PRECISION"), help="only measure the start-up of one engine"
    )
    flags = parser.parse_args()
    if flags.start:
        print(start(flags.model, *flags.start))
        return 0
    bundle = open_bundle(flags.model)
    cost = multiply_adds(bundle)
    print(f"{flags.model}: {cost / 1e9:.3f} billion multiply-adds per image; images/s (share of the float32 peak)")
    for name, record in ENGINES.items():
        for precision in record.precisions if record.formats else ():
            for threads in flags.threads:
                rounds, shares = [], []
                try:
                    for _ in range(flags.rounds):
                        possible = peak(threads) / cost
                        rounds.append(speed(bundle, name, precision, threads, flags.batches))
                        shares.append({batch: found / possible for batch, found in rounds[-1].items()})
                except (ContractError, ServiceError) as error:
                    print(f"{name} {precision}: {error}")
                    break
                cells = [
                    f"batch {b}: {median(r[b] for r in rounds):.1f} ({median(s[b] for s in shares):.0%})"
                    for b in flags.batches
                ]
                print(f"{name} {precision}, {threads} threads: {', '.join(cells)}", flush=True)
            else:
                again = [sys.executable, "-m", "benchmarks.engines", "--model", flags.model, "--start", name, precision]
                print(
                    f"  {subprocess.run(again, capture_output=True, text=True, check=True).stdout.strip()}", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
