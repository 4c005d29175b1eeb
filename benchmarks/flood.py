"""Goodput under a flood: answers in time, as shares of the capacity, while clients ignore Retry-After.

    python -m benchmarks.flood [--model BUNDLE] [--seconds 5] [--rounds 1]

One server, and in each round: t(1), one client alone; the capacity, clients with a long deadline; then the floods.
Unequal images are all different, equal ones all the same (which the service computes once). Health checks are asked on
new connections meanwhile. Everything shares this machine, so only ratios within a round mean much.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from benchmarks.serving import served

SAMPLES = Path(__file__).parents[1] / "models" / "samples"
CLIENTS, POLITE, MANY = 64, 4, 1000
UNEQUAL = 1200
LONG_MS = 20_000
PROBE_EVERY_S = 0.25
# name -> clients, of them polite, deadline as a multiple of t(1), aim
FLOODS = {
    "64 rude, 10 t(1)": (CLIENTS, 0, 10, 0.8),
    "64 rude, 3 t(1)": (CLIENTS, 0, 3, 0.5),
    "60 rude and 4 polite, 10 t(1)": (CLIENTS, POLITE, 10, 0.9),
    "1000 rude, 10 t(1)": (MANY, 0, 10, 0.72),
    "1000 rude, 3 t(1)": (MANY, 0, 3, 0.45),
}


def write_images(folder: Path, count: int) -> None:
    """So many different JPEGs of the size of the samples."""
    draw = random.Random(1)
    samples = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.iterdir()) if path.suffix in (".jpg", ".png")]
    for number in range(count):
        image = samples[number % len(samples)].rotate(draw.uniform(-20, 20))
        image.save(folder / f"{number:04}.jpg", quality=draw.randint(80, 95))


def bench(url: str, images: Path, seconds: float, *flags: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "service", "bench", "--url", url, "--json", "--warm-up", "1"]
    load = subprocess.run(
        [*command, "--duration", str(seconds), *map(str, flags), str(images)], stdout=subprocess.PIPE, check=False
    )
    figures: dict[str, Any] = json.loads(load.stdout)
    return figures


@dataclass
class Probes:
    """Milliseconds of each health check, each on a connection of its own."""

    took_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def p99(self) -> float:
        return sorted(self.took_ms)[int(0.99 * (len(self.took_ms) - 1))] if self.took_ms else float("nan")


@contextmanager
def probing(url: str) -> Iterator[Probes]:
    found, over = Probes(), threading.Event()

    def probe() -> None:
        while not over.wait(PROBE_EVERY_S):
            for path in ("/livez", "/readyz"):
                begun = time.perf_counter()
                try:
                    with urllib.request.urlopen(url + path, timeout=10):
                        found.took_ms.append((time.perf_counter() - begun) * 1000)
                except OSError:
                    found.failed += 1

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def run_round(url: str, images: Path, seconds: float) -> None:
    t1_ms = bench(url, images, seconds, "--timeout-ms", LONG_MS)["latency_ms"]["p50"]
    capacity: dict[int, float] = {}
    print(f"{images.name}: t(1) {t1_ms:.2f} ms")
    for name, (clients, polite, multiple, aim) in FLOODS.items():
        if clients not in capacity:
            figures = bench(url, images, seconds, "--concurrency", clients, "--timeout-ms", LONG_MS)
            # What came within the time: of the requests sent in it, a thousand may be answered later.
            capacity[clients] = figures["images_per_second"]
            print(f"  capacity with {clients} clients: {capacity[clients]:.0f}/s")
        flags = ["--concurrency", clients, "--rude", "--timeout-ms", max(1, round(multiple * t1_ms))]
        with probing(url) as probes:
            figures = bench(url, images, seconds, *flags, *(["--polite", polite] if polite else []))
        report(name, figures, capacity[clients], aim, probes)


def report(name: str, figures: dict[str, Any], capacity: float, aim: float, probes: Probes) -> None:
    in_time = figures["in_time_per_second"]
    refused = sum(refusal["count"] for refusal in figures["refusals"].values())
    late = figures["answers"] - figures["answers_in_time"]
    groups = "".join(f"; {kind} {group['in_time_per_second']:.0f}/s" for kind, group in figures["groups"].items())
    print(
        f"  {name:<30} {in_time:6.0f}/s = {in_time / capacity:.2f} of capacity (aim {aim}),",
        f"{late} late, {refused} refused; probes p50 {median(probes.took_ms or [0]):.0f},",
        f"p99 {probes.p99():.0f} ms, {probes.failed} failed{groups}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="repvgg-small-tinyimagenet")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(files, 8192)), most))
    with tempfile.TemporaryDirectory() as folder, served("--model", arguments.model) as server:
        for kind, count in (("unequal", UNEQUAL), ("equal", 1)):
            (Path(folder) / kind).mkdir()
            write_images(Path(folder) / kind, count)
        for _ in range(arguments.rounds):
            for kind in ("unequal", "equal"):
                run_round(server.url, Path(folder) / kind, arguments.seconds)


if __name__ == "__main__":
    main()
