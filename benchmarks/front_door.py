"""The overhead of HTTP: the server's CPU time per request, minus that of decoding and engine alone.

python -m benchmarks.front_door IMAGE [--model BUNDLE] [--engine NAME] [--requests N] [--rounds N]

Each round measures three things in turn: N requests to `repvgg serve` over one connection, with a raw body and as a
form, and N times decoding and engine in this process. CPU time is that of all threads of the process, so waiting does
not count; a busy machine still increases it, but for all three alike.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.serving import served
from models.preprocess import preprocess
from models.scores.topk import softmax, top_k
from models.store import open_bundle
from service.engines.loading import load_engine

TYPES = {"raw": "image/jpeg", "form": "multipart/form-data; boundary=front-door"}


def process_cpu_s(process_id: int) -> float:
    """User and system time of all threads; proc(5), fields 14 and 15 of stat."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(port: int, kind: str, image: bytes) -> Callable[[], None]:
    connection = HTTPConnection("127.0.0.1", port)
    head = b'--front-door\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n'
    body = image if kind == "raw" else head + image + b"\r\n--front-door--\r\n"

    def ask() -> None:
        connection.request("POST", "/classify", body, {"Content-Type": TYPES[kind]})
        reply = connection.getresponse()
        answer = reply.read()
        if reply.status != 200:
            raise SystemExit(answer.decode())

    return ask


def alone(model: str, engine_name: str, image: bytes) -> Callable[[], None]:
    bundle = open_bundle(model)
    engine = load_engine(engine_name, bundle, "fp32", threads=1)

    def classify() -> None:
        (logits,) = engine.infer(preprocess(image, bundle.manifest.preprocess)[None])
        top_k(softmax(logits), bundle.labels, 5)

    return classify


def cpu_ms(work: Callable[[], None], times: int, clock: Callable[[], float]) -> float:
    """Per call of `work`."""
    began = clock()
    for _ in range(times):
        work()
    return (clock() - began) / times * 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.front_door", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="repvgg-small-tinyimagenet", metavar="BUNDLE")
    parser.add_argument("--engine", default="fake")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    image = flags.image.read_bytes()
    chosen = ["--model", flags.model, "--engine", flags.engine, "--precision", "fp32", "--engine-threads", "1"]
    with served(*chosen) as server:
        pid = server.process.pid
        kinds = {kind: (asked(server.port, kind, image), partial(process_cpu_s, pid)) for kind in TYPES}
        kinds["alone"] = (alone(flags.model, flags.engine, image), time.process_time)
        for work, clock in kinds.values():
            cpu_ms(work, 100, clock)
        for _ in range(flags.rounds):
            found = {kind: cpu_ms(work, flags.requests, clock) for kind, (work, clock) in kinds.items()}
            cells = [f"{kind} {spent:.2f}" for kind, spent in found.items()]
            over = [f"{kind} +{found[kind] - found['alone']:.2f}" for kind in TYPES]
            print(f"CPU ms per request: {', '.join(cells)}; overhead: {', '.join(over)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
