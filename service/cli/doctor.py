"""Say whether this machine can serve, with what, what to do where it cannot, and how many such pods a load needs."""

from __future__ import annotations

import argparse
import json
import logging
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models.errors import ContractError
from service.errors import AddressUnavailable, ServiceError, UsageError
from service.machine.limits import affinity_cpus, cpu_quotas, usable_cpus
from service.observe import logs
from service.observe.logs import visible
from service.runtime.console import Console
from service.runtime.memory import memory_shortage
from service.settings import (
    ENGINE_FLAGS,
    Settings,
    add_flags,
    load_settings,
)

FLAGS = ("model", *ENGINE_FLAGS, "pixels", "decode_threads", "max_image_pixels", "host", "port")

OK, WARNING, PROBLEM = "ok", "warning", "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """`level`: ok, warning (it serves, but not as it could) or PROBLEM (it cannot serve). `text` says what is, and
    where that is not ok, what to do."""

    topic: str
    level: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plan", action="store_true", help="say how many pods like this machine a load needs")
    parser.add_argument("--rate", type=_positive, metavar="R", help="with --plan: images a second, at the peak")
    parser.add_argument("--deadline-ms", type=_positive, metavar="D", help="with --plan: time for an answer")
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="with --plan: images like those that will come (default the bundle's golden ones)",
    )
    add_flags(parser, FLAGS)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number over 0")
    return number


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Prints every finding, then raises the first error that keeps the service from serving, if there is one; or with
    --plan what a load needs. Raises UsageError."""
    if len({arguments.plan, arguments.rate is not None, arguments.deadline_ms is not None}) > 1:
        raise UsageError("--plan, --rate R and --deadline-ms D go together")
    settings, warnings = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    if arguments.plan:
        from service.cli import plan

        return plan.run(arguments, settings, console)
    findings = [Finding("settings", WARNING, warning) for warning in warnings]
    errors: list[Exception] = []
    for topic, examine in TOPICS.items():
        try:
            for level, text in examine(settings):
                findings.append(Finding(topic, level, text))
        except (ContractError, ServiceError, AddressUnavailable) as error:
            findings.append(Finding(topic, PROBLEM, str(error)))
            errors.append(error)
    if arguments.json:
        print(json.dumps({"can_serve": not errors, "findings": [asdict(one) for one in findings]}), file=console.out)
    else:
        for one in findings:
            print(visible(f"{one.level:<8} {one.topic:<9} {one.text}"), file=console.out)
    if errors:
        raise errors[0]
    return 0


def _system(_: Settings) -> Iterator[tuple[str, str]]:
    from service.observe.metrics import program_version

    yield OK, f"repvgg {program_version()}, Python {platform.python_version()}, {platform.platform()}"


def _cpu(_: Settings) -> Iterator[tuple[str, str]]:
    from service.machine.features import BF16, INT8, cpu_flags

    flags = cpu_flags()
    fast = [name for name, needed in (("bf16", BF16), ("int8", INT8)) if needed & flags]
    yield OK, f"{platform.machine()}, instructions for {' and '.join(fast) or 'neither bf16 nor int8'}"


def _threads(settings: Settings) -> Iterator[tuple[str, str]]:
    usable = usable_cpus()
    quotas = ", ".join(f"{quota:g}" for quota in cpu_quotas()) or "none"
    yield OK, f"{usable} CPUs may be used: affinity {affinity_cpus()}, cgroup quota {quotas}"
    for name in ("engine_threads", "decode_threads"):
        threads = getattr(settings, name)
        if threads is not None and threads > usable:
            yield WARNING, f"{name} is {threads} on {usable} CPUs, and they will wait for each other: leave it out"


def _memory(settings: Settings) -> Iterator[tuple[str, str]]:
    shortage = memory_shortage(settings)
    yield (WARNING, shortage) if shortage else (OK, "the largest images allowed fit into it")


def _engines(_: Settings) -> Iterator[tuple[str, str]]:
    from service.engine_table import ENGINES
    from service.engines.loading import is_installed

    for name, record in ENGINES.items():
        if record.package:
            found = _version_of(record.package) if is_installed(name) else f"not installed ({record.how_to_install})"
            yield OK, f"{name}: {found}; can do {', '.join(record.precisions)}"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # another build, onnxruntime-gpu for instance
        return "installed"


def _codecs(_: Settings) -> Iterator[tuple[str, str]]:
    from PIL import __version__, features

    from models.preprocess import FORMATS

    needed = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "TIFF": "libtiff"}
    missing = [name for name in FORMATS if name in needed and not features.check(needed[name])]
    present = ", ".join(name for name in FORMATS if name not in missing)
    yield OK, f"Pillow {__version__} reads {present}"
    if missing:
        yield WARNING, f"images of these formats will be refused: {', '.join(missing)}; install Pillow from its wheel"


def _port(settings: Settings) -> Iterator[tuple[str, str]]:
    from service.runtime.listener import listen, url_of

    with listen(settings.host, settings.port) as listener:
        yield OK, f"{url_of(listener)} is free"


def _model(settings: Settings) -> Iterator[tuple[str, str]]:
    from models.store import open_bundle
    from service.engines.selection import check_pixels, in_words, open_engine

    bundle = open_bundle(settings.model)
    artifacts = ", ".join(f"{artifact.format} {artifact.precision}" for artifact in bundle.manifest.artifacts)
    yield OK, f"{bundle.manifest.name} {bundle.manifest.version} has {artifacts}; every checksum is right"
    check_pixels(bundle, settings)
    engine, choice = open_engine(bundle, settings)
    engine.close()
    for candidates in in_words(choice.candidates):
        yield OK, candidates
    yield OK, f"{choice.engine} {choice.precision} on {engine.device} would serve, {choice.reason}"


TOPICS: dict[str, Callable[[Settings], Iterator[tuple[str, str]]]] = {
    "system": _system,
    "cpu": _cpu,
    "threads": _threads,
    "memory": _memory,
    "engines": _engines,
    "codecs": _codecs,
    "port": _port,
    "model": _model,
}
