"""Put load on a running service and measure the latency that its clients see."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from service.cli.numbers import add_price, not_negative, positive, positive_count
from service.cli.outputs import check_chart, check_folder
from service.observe import logs
from service.runtime.console import Console
from service.settings import Settings, add_flags, load_settings, variable_name

if TYPE_CHECKING:
    from tqdm import tqdm

    from service.load.figures import Figures
    from service.load.generator import Run

FLAGS = ("timeout_ms",)
DEFAULT_DURATION_S, DEFAULT_WARM_UP_S = 10.0, 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--url", help="the service; without a path the load goes to /classify")
    what.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="compare two files of --save: B as ratios to A"
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="*", type=Path, help="images, or folders of images, sent in turn"
    )
    _add_load_flags(parser)
    parser.add_argument(
        "--histogram", type=Path, metavar="FILE.png|FILE.html", help="draw a histogram of the latencies"
    )
    add_price(parser)
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    parser.add_argument("--save", type=Path, metavar="FILE", help="save the results for --compare")
    add_flags(parser, FLAGS)
    parser.epilog = f"If {variable_name('api_keys')} is set, requests carry its first key."


def _add_load_flags(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--rate",
        type=positive,
        metavar="R",
        help="open loop: R requests per second at random times, however slow the answers are",
    )
    how.add_argument(
        "--concurrency",
        type=positive_count,
        metavar="C",
        help="closed loop: C clients, each with one request in flight (default 1)",
    )
    parser.add_argument(
        "--rude",
        action="store_true",
        help="closed loop: refused clients send their next request immediately",
    )
    parser.add_argument(
        "--polite",
        type=positive_count,
        default=0,
        metavar="N",
        help="closed loop: after a refusal, N of the clients wait as long as Retry-After says",
    )
    parser.add_argument(
        "--duration",
        type=positive,
        default=DEFAULT_DURATION_S,
        metavar="S",
        help="seconds to measure (default %(default)g)",
    )
    parser.add_argument(
        "--warm-up",
        type=not_negative,
        default=DEFAULT_WARM_UP_S,
        metavar="S",
        help="seconds of the same load before the measurement (default %(default)g)",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """-> 1 if nothing was answered. Raises KeyboardInterrupt after Ctrl-C, once the results so far are reported."""
    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    if arguments.compare:
        return _compare(arguments, console)
    from service.load import histogram
    from service.load.reports import describe

    check_chart("--histogram", arguments.histogram, histogram.SUFFIXES)
    check_folder("--save", arguments.save)
    figures = _measure(arguments, settings, console)
    for warning in figures.warnings():
        print(f"warning: {warning}", file=console.err)
    print(
        *(
            [json.dumps(figures.model_dump(mode="json"))]
            if arguments.json
            else describe(figures, arguments.core_hour_price)
        ),
        sep="\n",
        file=console.out,
    )
    if arguments.save:
        arguments.save.write_text(figures.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if arguments.histogram and figures.answers:
        arguments.histogram.write_bytes(histogram.encode(figures, arguments.histogram.suffix))
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


def _measure(arguments: argparse.Namespace, settings: Settings, console: Console) -> Figures:
    """The load, with a progress bar on a terminal."""
    from service.load.measure import describe_progress, measure, plan_load

    seconds = arguments.warm_up + arguments.duration
    plan = plan_load(
        settings,
        seconds=seconds,
        rate=arguments.rate,
        clients=arguments.concurrency,
        rude=arguments.rude,
        polite=arguments.polite,
    )
    with _progress_bar(seconds, console) as bar:

        def show(so_far: Run, elapsed_s: float) -> None:
            if not bar.disable:
                bar.n = elapsed_s
                bar.set_description_str(describe_progress(so_far, elapsed_s))

        return measure(arguments.url, arguments.files, settings, plan, arguments.warm_up, show)


def _progress_bar(seconds: float, console: Console) -> tqdm[NoReturn]:
    from tqdm import tqdm

    form = "{n:.0f}/{total:.0f} s |{bar:20}| {desc}"
    return tqdm(total=seconds, bar_format=form, file=console.err, leave=False, disable=not console.err.isatty())
