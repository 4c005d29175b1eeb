"""The cost of running an engine in a separate process: wall and CPU time of a batch here and there.

python -m benchmarks.worker [--model BUNDLE] [--engines fake onnxruntime] [--batches 1 16] [--rounds N]

Both are measured in turn, batch by batch, in one run, since other results cannot be compared on a shared machine. Two
processes wait for a busy CPU more often than one, so wall time says little there; the CPU time of both together is
reliable.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from models.store import Bundle, open_bundle
from service.engines.loading import load_engine


def cpu_s() -> float:
    """CPU time of this process and of the main thread of its only child, the engine; proc(5), sched-stats.txt."""
    children = [pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    theirs_ns = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in children)
    return time.process_time() + theirs_ns / 1e9


def measure(infer: Callable[[np.ndarray], object], images: np.ndarray) -> tuple[float, float]:
    """Wall and CPU time of one batch, microseconds."""
    cpu, wall = cpu_s(), time.perf_counter()
    infer(images)
    wall = time.perf_counter() - wall
    return wall * 1e6, (cpu_s() - cpu) * 1e6


def compare(name: str, bundle: Bundle, batches: Sequence[int], rounds: int) -> list[str]:
    """One line per batch size and kind of time."""
    here = load_engine(name, bundle, "fp32", threads=1)
    there = load_engine(name, bundle, "fp32", threads=1, python=sys.executable)
    lines = []
    for batch in batches:
        images = np.random.default_rng(0).random((batch, 3, here.input_size, here.input_size), np.float32)
        turns = [(measure(here.infer, images), measure(there.infer, images)) for _ in range(rounds)]
        ours, theirs = (zip(*times, strict=True) for times in zip(*turns, strict=True))
        for kind, own, hosted in zip(("wall", "CPU"), map(median, ours), map(median, theirs), strict=True):
            lines.append(
                f"{name:<12} batch {batch:>2}, {kind:>4}: {own:7.0f} us here, {hosted:7.0f} us in a separate process, "
                f"{hosted - own:+6.0f} us, ratio {hosted / own:.2f}"
            )
    here.close()
    there.close()
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="repvgg-small-tinyimagenet", metavar="BUNDLE")
    parser.add_argument("--engines", nargs="+", default=["fake", "onnxruntime"], metavar="NAME")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16], metavar="N")
    parser.add_argument("--rounds", type=int, default=500, metavar="N")
    flags = parser.parse_args(argv)
    bundle = open_bundle(flags.model)
    for name in flags.engines:
        print(*compare(name, bundle, flags.batches, flags.rounds), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
