"""Checks whether this machine can serve: findings by topic, each problem with a solution."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from models.errors import BundleError, ContractError
from service.errors import AddressUnavailable, GoldenCheckFailed, ServiceError
from service.machine.limits import affinity_cpus, cpu_quotas, usable_cpus
from service.runtime.memory import memory_shortage
from service.settings import Settings

OK, WARNING, PROBLEM = "ok", "warning", "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """`level`: ok, warning (it serves, but not as well as it could) or PROBLEM (it cannot serve). `text` says what was
    found and, unless it is ok, what to do about it.
    """

    topic: str
    level: str
    text: str


def examine(settings: Settings, warnings: Iterable[str]) -> tuple[list[Finding], list[Exception]]:
    """All findings, and the errors that keep the service from starting; `warnings` are those of the settings."""
    findings = [Finding("settings", WARNING, warning) for warning in warnings]
    errors: list[Exception] = []
    for topic, find in TOPICS.items():
        try:
            for level, text in find(settings):
                findings.append(Finding(topic, level, text))
        except (ContractError, ServiceError, AddressUnavailable) as error:
            findings.append(Finding(topic, PROBLEM, str(error)))
            errors.append(error)
    return findings, errors


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
            yield WARNING, f"{name} is {threads} on {usable} CPUs, so threads will wait for each other: leave it unset"


def _memory(settings: Settings) -> Iterator[tuple[str, str]]:
    shortage = memory_shortage(settings)
    yield (WARNING, shortage) if shortage else (OK, "enough for the largest images allowed")


def _engines(_: Settings) -> Iterator[tuple[str, str]]:
    from service.engine_table import ENGINES
    from service.engines.loading import is_installed

    for name, record in ENGINES.items():
        if record.package:
            found = _version_of(record.package) if is_installed(name) else f"not installed ({record.how_to_install})"
            yield OK, f"{name}: {found}; supports {', '.join(record.precisions)}"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # installed under another name, for instance onnxruntime-gpu
        return "installed"


def _codecs(_: Settings) -> Iterator[tuple[str, str]]:
    from PIL import __version__, features

    from models.preprocess import FORMATS

    needed = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "TIFF": "libtiff"}
    missing = [name for name in FORMATS if name in needed and not features.check(needed[name])]
    present = ", ".join(name for name in FORMATS if name not in missing)
    yield OK, f"Pillow {__version__} reads {present}"
    if missing:
        yield WARNING, f"images of these formats will be rejected: {', '.join(missing)}; install Pillow from its wheel"


def _port(settings: Settings) -> Iterator[tuple[str, str]]:
    from service.runtime.listener import listen, url_of

    with listen(settings.host, settings.port) as listener:
        yield OK, f"{url_of(listener)} is free"


def _model(settings: Settings) -> Iterator[tuple[str, str]]:
    """As a start does it: an older version serves if the newest cannot."""
    from models.store import find_versions

    folders = find_versions(settings.model)[: 1 if settings.strict_version else None]
    for folder in folders:
        try:
            yield from _version(settings.model_copy(update={"model": str(folder)}))
        except (BundleError, GoldenCheckFailed) as error:
            if folder == folders[-1]:
                raise
            yield WARNING, f"version {folder.name} cannot serve, so an older one is opened: {error}"
        else:
            return


def _version(settings: Settings) -> Iterator[tuple[str, str]]:
    from service.engines.selection import check_pixels, in_words, open_engine
    from service.engines.trusted import open_trusted

    bundle = open_trusted(settings)
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
