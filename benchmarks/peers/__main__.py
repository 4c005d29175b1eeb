"""Our service beside LitServe, mosec, BentoML, Triton and plain FastAPI: the same photos, network and machine.

python -m benchmarks.peers PHOTOS [--model BUNDLE] [--peers NAME...] [--ours ENGINE/PRECISION[/BATCH]...] [--rounds N]
                           [--seconds S] [--clients 1 8 32] [--shares 0.5 0.8 1.5 3] [--deadline-ms 1000] [--out FOLDER]

The peers run the bundle's fp32 ONNX on ONNX Runtime, with our own code for the pixels, so that only serving differs;
each is installed into an environment of its own under benchmarks/peers/.venvs. A round takes every server in turn:
closed loops, then open loops at shares of the best of these, and the in-process limit of its engine before and after
(benchmarks.pipeline). The order rotates from round to round. Answers are compared with those computed here: an fp32
server with other answers is skipped. On a shared machine only the ratios mean anything. Ctrl-C ends with the tables
so far.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.peers import CPUS, PEERS, ROOT, Running, Server, Unusable, best, ours, requirements, set_up
from benchmarks.peers.report import HEADLINES, Turn, as_markdown, summary, tables
from models.preprocess import images_in, preprocess
from models.scores.topk import scores_of
from models.store import Bundle, open_bundle
from scripts.docs_charts import Chart, Panel, svg_of
from service.engines.loading import load_engine
from service.load.figures import Figures, summarise
from service.load.generator import Plan, ask_once, run_load
from service.load.measure import GRACE_S
from service.load.target import read_images
from service.load.wire import Broken
from service.settings import Settings

WARM_UP_SHARE = 0.1  # of a load, before its figures begin
COMPARED = 20  # photos whose answers are compared
PATIENCE_MS = 60_000  # for what must be answered before the next load
FP32_SCORE_TOLERANCE = 1e-3
OURS = ["onnxruntime/fp32", "ncnn/fp32", "ncnn/fp32/8", "openvino/bf16", "openvino/int8"]
DEFAULT_MODEL = ROOT / "build" / "bench" / "repvgg-a0" / "1"


@dataclass(frozen=True)
class Effort:
    """The loads of every server: `seconds` of each, not counting its warm-up; `shares` of the capacity."""

    seconds: float
    clients: Sequence[int]
    shares: Sequence[float]
    deadline_ms: int


def expected(bundle: Bundle, photos: Sequence[bytes]) -> list[tuple[int, float]]:
    """Best class and its score, computed here in fp32."""
    engine = load_engine("onnxruntime", bundle, "fp32", threads=1)
    spec = bundle.manifest.preprocess
    scores = [scores_of(engine.infer(preprocess(photo, spec)[None])[0], bundle.manifest) for photo in photos]
    engine.close()
    return [(int(np.argmax(row)), float(row.max())) for row in scores]


def limit(folder: Path, model: Path, engine: str) -> float:
    """images/s of `engine/precision` without a server, at its better batch size."""
    name, precision = engine.split("/")
    command = [sys.executable, "-m", "benchmarks.pipeline", str(folder), "--model", str(model), "--engine", name]
    command += ["--precision", precision, "--batches", "1", "4", "--rounds", "1", "--json", "--images", "100"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Unusable(f"the in-process limit cannot be measured: {ended.stderr.strip().splitlines()[-1]}")
    return max(speeds["whole"] for speeds in json.loads(ended.stdout.splitlines()[-1]).values())


def share_of_same(running: Running, photos: Sequence[bytes], truths: Sequence[tuple[int, float]]) -> float:
    """The share of the photos with the expected class. Raises Unusable if an fp32 server differs from `truths`."""
    requests = [running.server.prepare(running.address, photo, PATIENCE_MS) for photo in photos]
    answers = [best(ask_once(running.address, request, PATIENCE_MS / 1000)) for request in requests]
    same = sum(mine[0] == true[0] for mine, true in zip(answers, truths, strict=True)) / len(truths)
    off = max(abs(mine[1] - true[1]) for mine, true in zip(answers, truths, strict=True))
    if running.server.engine.endswith("/fp32") and (same < 1 or off > FP32_SCORE_TOLERANCE):
        raise Unusable(f"its answers are wrong: {same:.0%} the same, scores up to {off:.3g} off")
    return same


def measure(
    turn: Turn, running: Running, photos: Sequence[bytes], truths: Sequence[tuple[int, float]], effort: Effort
) -> None:
    """Fill in `turn`. Raises Unusable, and KeyboardInterrupt for a Ctrl-C."""
    server, address = running.server, running.address
    patient = server.prepare(address, photos[0], PATIENCE_MS)
    running.wait(patient)
    turn.same_answers = share_of_same(running, photos[: len(truths)], truths)
    requests = [server.prepare(address, photo, effort.deadline_ms) for photo in photos]

    def load(rate: float | None, clients: int) -> Figures:
        warm_up_s = WARM_UP_SHARE * effort.seconds
        plan = Plan(warm_up_s + effort.seconds, effort.deadline_ms / 1000 + GRACE_S, rate, clients)
        cpu_s = running.cpu_s
        figures = summarise(
            run_load(address, requests, plan),
            plan,
            url=server.name,
            model=server.engine,
            deadline_ms=effort.deadline_ms,
            images=len(photos),
            warm_up_s=warm_up_s,
            server_cpu_s=running.cpu_s - cpu_s,
        )
        if figures.stopped:
            raise KeyboardInterrupt
        for warning in figures.warnings():
            print(f"{server.name}: {warning}", file=sys.stderr)
        running.wait(patient)  # until the backlog is cleared
        return figures

    for clients in effort.clients:
        turn.closed[clients] = load(None, clients)
    if not turn.capacity:
        raise Unusable("it answered nothing under load")
    for share in effort.shares:
        turn.open[share] = load(share * turn.capacity, 1)


def compare(
    servers: Sequence[Server], photos: Path, model: Path, rounds: int, effort: Effort, out: Path, turns: list[Turn]
) -> None:
    """Append to `turns`, and to `out`/turns.jsonl; a server that cannot be measured is named and skipped."""
    images = list(read_images([photos], Settings().max_image_pixels).values())
    truths = expected(open_bundle(str(model)), images[:COMPARED])
    for number in range(rounds):
        for server in [*servers[number % len(servers) :], *servers[: number % len(servers)]]:
            print(f"round {number + 1} of {rounds}: {server.name}", file=sys.stderr, flush=True)
            try:
                turn = Turn(server.name, number, limit(photos, model, server.engine), 0.0)
                with Running(server, model, out / f"{server.name.replace(' ', '-').replace('/', '-')}.log") as running:
                    measure(turn, running, images, truths, effort)
                turn.limit = (turn.limit + limit(photos, model, server.engine)) / 2  # the machine's speed drifts
            except (Unusable, Broken) as error:
                print(f"{server.name}: {error}", file=sys.stderr)
                continue
            turns.append(turn)
            with (out / "turns.jsonl").open("a") as file:
                print(as_json(turn), file=file)


def as_json(turn: Turn) -> str:
    loads = {
        kind: {load: figures.model_dump() for load, figures in getattr(turn, kind).items()}
        for kind in ("closed", "open")
    }
    return json.dumps(vars(turn) | loads)


def write_summary(turns: Sequence[Turn], out: Path) -> None:
    """The table and the chart of docs/performance.md."""
    rows = summary(turns)
    (out / "servers.md").write_text("\n".join(as_markdown(rows)) + "\n")
    panels = [
        Panel(f"{column}, {better}", column) for column, better in HEADLINES if all(column in row for row in rows)
    ]
    (out / "servers.svg").write_text(svg_of(Chart("", panels), rows))
    print(f"\nin {out}: servers.md and servers.svg, as in docs/performance.md, and turns.jsonl")


def installed(names: Sequence[str]) -> list[Server]:
    peers = []
    for name in names:
        try:
            set_up(name)
        except Unusable as error:
            print(f"{name}: {error}", file=sys.stderr)
        else:
            peers.append(PEERS[name])
    return peers


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="default: RepVGG-A0 with random weights")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="NAME")
    parser.add_argument("--ours", nargs="+", default=OURS, metavar="ENGINE/PRECISION[/BATCH]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.5, 0.8, 1.5, 3.0])
    parser.add_argument("--deadline-ms", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="logs and turns.jsonl")
    flags = parser.parse_args(argv)
    if next(images_in(flags.photos), None) is None:
        parser.error(f"{flags.photos}: there are no photos in this folder")
    flags.out.mkdir(parents=True, exist_ok=True)
    if flags.model == DEFAULT_MODEL and not flags.model.is_dir():
        # In a process of its own: importing training keeps oneDNN, and so OpenVINO in the servers, from AVX-512.
        command = [sys.executable, "-m", "benchmarks.random_bundle", "--out", flags.model]
        command += ["--calibration", flags.photos.resolve()]
        if failed := subprocess.run(command, cwd=ROOT, check=False).returncode:
            return failed
    servers = [*(ours(engine, flags.model) for engine in flags.ours), *installed(flags.peers)]
    effort = Effort(flags.seconds, flags.clients, flags.shares, flags.deadline_ms)
    turns: list[Turn] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the running server must end too
    try:
        compare(servers, flags.photos, flags.model, flags.rounds, effort, flags.out, turns)
    except KeyboardInterrupt:
        print("stopped; the results so far:", file=sys.stderr)
    print(f"{flags.rounds} rounds of {flags.seconds:g} s, deadline {flags.deadline_ms} ms, {CPUS} CPUs, ", end="")
    print(f"Python {platform.python_version()}; {', '.join(requirements(name)[0] for name in flags.peers)}")
    print(*tables(turns, servers[0].name), sep="\n")
    if turns:
        write_summary(turns, flags.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
