"""Put load on a running service and measure what its clients would see."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NoReturn

from service.errors import UsageError
from service.observe import logs
from service.runtime.console import Console
from service.settings import Settings, add_flags, load_settings, variable_name

if TYPE_CHECKING:
    from tqdm import tqdm

    from service.load.figures import Figures
    from service.load.generator import Plan, Run

FLAGS = ("timeout_ms",)
DEFAULT_DURATION_S, DEFAULT_WARM_UP_S = 10.0, 1.0
# Beyond its deadline, for a refusal on its way; what has no answer then counts as a failure.
GRACE_S = 1.0
DRAWINGS = (".png", ".html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--url", help="the service; without a path, /classify is asked")
    what.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two files of --save, B as ratios to A")
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="images, or folders of them, sent in turn")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--rate", type=positive, metavar="R", help="open loop: R requests a second, at random times, never held back"
    )
    how.add_argument("--concurrency", type=positive_count, metavar="C", help="closed loop: C clients (default 1)")
    parser.add_argument(
        "--duration", type=positive, default=DEFAULT_DURATION_S, metavar="S", help="seconds (default %(default)g)"
    )
    parser.add_argument(
        "--warm-up",
        type=not_negative,
        default=DEFAULT_WARM_UP_S,
        metavar="S",
        help="seconds of the same load before, which are left out of the figures (default %(default)g)",
    )
    parser.add_argument("--histogram", type=Path, metavar="FILE.png|FILE.html", help="draw the latencies")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the figures for --compare")
    add_flags(parser, FLAGS)
    parser.epilog = f"An API key is taken from {variable_name('api_keys')}, the first one there."


def positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def not_negative(text: str) -> float:
    return positive(text) if float(text) else 0.0


def positive_count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def run(arguments: argparse.Namespace, console: Console) -> int:
    """-> 1 if nothing was answered. Raises KeyboardInterrupt after Ctrl-C, once the figures so far are reported."""
    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    if arguments.compare:
        return _compare(arguments, console)
    _check_can_write(arguments.histogram, arguments.save)
    from service.load.reports import describe

    figures = _measure(arguments, settings, console)
    for warning in figures.warnings():
        print(f"warning: {warning}", file=console.err)
    print(
        *([json.dumps(figures.model_dump(mode="json"))] if arguments.json else describe(figures)),
        sep="\n",
        file=console.out,
    )
    if arguments.save:
        arguments.save.write_text(figures.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if arguments.histogram and figures.answers:
        arguments.histogram.write_bytes(_drawn(figures, arguments.histogram.suffix))
    if figures.stopped:
        raise KeyboardInterrupt
    return 0 if figures.answers else 1


def _compare(arguments: argparse.Namespace, console: Console) -> int:
    from service.load.figures import Figures
    from service.load.reports import compared, describe_both

    a, b = (Figures.read(path) for path in arguments.compare)
    for difference in a.differences(b):
        print(f"warning: {difference}", file=console.err)
    if arguments.json:
        rows = {name: dict(zip(("a", "b", "ratio"), values, strict=True)) for name, values in compared(a, b).items()}
        print(json.dumps(rows), file=console.out)
    else:
        print(*describe_both(a, b), sep="\n", file=console.out)
    return 0


def _check_can_write(histogram: Path | None, save: Path | None) -> None:
    """Before the load, not after it."""
    if histogram and histogram.suffix not in DRAWINGS:
        raise UsageError(f"--histogram {histogram}: the name must end in {' or '.join(DRAWINGS)}")
    for flag, path in (("--histogram", histogram), ("--save", save)):
        if path and not path.parent.is_dir():
            raise UsageError(f"{flag}: there is no folder {path.parent}")


def _measure(arguments: argparse.Namespace, settings: Settings, console: Console) -> Figures:
    from service.load.figures import summarise
    from service.load.generator import Plan, run_load
    from service.load.target import check_server, prepare, read_images, read_url

    address, target = read_url(arguments.url, settings.timeout_ms)
    images = read_images(arguments.files, settings.max_image_pixels)
    requests = prepare(address, target, list(images.values()), settings)
    patience_s = settings.timeout_ms / 1000 + GRACE_S
    model = check_server(arguments.url, address, requests[0], patience_s)
    plan = Plan(arguments.warm_up + arguments.duration, patience_s, arguments.rate, arguments.concurrency or 1)
    with _progress(plan, console) as bar:
        found = run_load(address, requests, plan, lambda run, elapsed_s: _show(bar, run, elapsed_s))
    return summarise(
        found,
        plan,
        url=arguments.url,
        model=model,
        deadline_ms=settings.timeout_ms,
        images=len(images),
        warm_up_s=arguments.warm_up,
    )


def _progress(plan: Plan, console: Console) -> tqdm[NoReturn]:
    from tqdm import tqdm

    form = "{n:.0f}/{total:.0f} s |{bar:20}| {desc}"
    return tqdm(total=plan.seconds, bar_format=form, file=console.err, leave=False, disable=not console.err.isatty())


def _show(bar: tqdm[NoReturn], run: Run, elapsed_s: float) -> None:
    """What ended within the last second."""
    if bar.disable:
        return
    recent = list(itertools.takewhile(lambda sample: sample.ended_s > elapsed_s - 1, reversed(run.samples)))
    latencies_s = [sample.latency_s for sample in recent if sample.status == 200]
    p50 = f"p50 {median(latencies_s) * 1000:.1f} ms, " if latencies_s else ""
    bar.n = elapsed_s
    bar.set_description_str(f"{len(latencies_s)} images/s, {p50}{len(recent) - len(latencies_s)} refused or failed")


def _drawn(figures: Figures, suffix: str) -> bytes:
    from service.load.histogram import page, png, shapes
    from service.load.reports import headline

    title = headline(figures)
    drawing = list(shapes(figures, title))
    return png(drawing) if suffix == ".png" else page(drawing, title)
