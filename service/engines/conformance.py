"""What every engine must do, in every precision: a row of tests an engine, and `repvgg inspect --verify` for users.

1. it reproduces the golden logits within the manifest's tolerance;
2. it takes any batch size from one to the largest;
3. an image's answer does not depend on its neighbours;
4. the last of many calls answers as the first, and memory does not grow;
5. concurrent calls are answered as single ones;
6. `close` frees the memory;
7. a corrupt artifact is a BundleError.

Each engine is looked at in a process of its own: one that dies is a failure to report and not the end, and what one
runtime sets in its process (oneDNN's instructions, threads, logs) is not there for the next.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models import golden
from models.errors import BundleError
from models.manifest import Precision
from models.store import Bundle
from service.engines.base import Engine
from service.engines.capabilities import CAPABILITIES, choose_artifact
from service.engines.table import how_to_install, is_installed, load_engine
from service.engines.timing import images_per_second
from service.errors import EngineUnavailable

# Between two runs of the same shape, of logits in the order of 10: only the last bits of fp32 may differ.
SAME_SHAPE_TOLERANCE = 1e-5
CALLERS = 4
CYCLES, ROUNDS = 5, 3
ALLOWED_GROWTH_BYTES = 16 << 20
MEASURE_S = 1.0

Options = Mapping[str, str | int]
T = TypeVar("T")


class ConformanceError(Exception):
    """An engine does not do what every engine must. The text says what happened instead."""


@dataclass(frozen=True)
class Subject:
    """An open `engine`, which is what `open` gives for `bundle`, and what it answered: `report` of the golden images,
    `alone`, float32 (M, K), for each of `images`, float32 (M, 3, S, S), which are the largest batch. `calls`: how many
    are many."""

    bundle: Bundle
    open: Callable[[Bundle], Engine]
    engine: Engine
    report: golden.GoldenReport
    images: NDArray[np.float32]
    alone: NDArray[np.float32]
    calls: int


@dataclass(frozen=True)
class Row:
    """What was found of one engine in one precision. `unavailable`: why it was not looked at; `failures`: check ->
    what happened instead; the speed is that of the largest batch."""

    engine: str
    precision: Precision
    unavailable: str | None = None
    max_delta: float | None = None
    top1_agreement: float | None = None
    images_per_second: float | None = None
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Effort:
    """How an engine is opened and how long it is looked at: `max_batch_size` images at once, `calls` calls.

    `python`: the interpreter of its own process, if it has one.
    """

    threads: int
    max_batch_size: int
    calls: int
    python: str = ""


def verify(bundle: Bundle, engines: Mapping[str, Options], effort: Effort) -> Iterator[Row]:
    """A row for each of the engines and each precision that it can have, as they are found. An engine's options are
    further arguments of its `open`."""
    for engine, options in engines.items():
        for precision in CAPABILITIES[engine].precisions:
            yield verify_one(bundle, engine, precision, effort, options)


def verify_one(
    bundle: Bundle, engine: str, precision: Precision, effort: Effort, options: Options | None = None
) -> Row:
    """In a process of its own."""
    row = Row(engine, precision)
    reason = _why_not(bundle, engine, precision, effort.python)
    if reason is not None:
        return replace(row, unavailable=reason)
    try:
        return in_own_process(run_checks, bundle, row, effort, options or {})
    except ConformanceError as error:
        return replace(row, failures=(("process", str(error)),))


def in_own_process(work: Callable[..., T], *arguments: object) -> T:
    """Raises what `work` raises, ConformanceError if the process dies."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise ConformanceError("its process died") from error


def _why_not(bundle: Bundle, engine: str, precision: Precision, python: str) -> str | None:
    if precision not in bundle.manifest.golden.tolerance:
        return f"the manifest gives no golden tolerance for {precision}"
    try:
        choose_artifact(engine, bundle, precision)
    except BundleError:
        return "the bundle has no artifact for it"
    return None if python or is_installed(engine) else f"not installed: {how_to_install(engine)}"


def run_checks(bundle: Bundle, row: Row, effort: Effort, options: Options) -> Row:
    """In this process."""
    try:
        subject = _subject(bundle, row, effort, options)
        speed = images_per_second(subject.engine.infer, subject.images, MEASURE_S)
    except EngineUnavailable as error:
        return replace(row, unavailable=str(error))
    except Exception as error:  # noqa: BLE001  # a runtime may raise anything
        return replace(row, failures=(("open and answer", str(error)),))
    try:
        return replace(
            row,
            max_delta=subject.report.max_delta,
            top1_agreement=subject.report.top1_agreement,
            failures=tuple(_failures(subject)),
            images_per_second=speed,
        )
    finally:
        subject.engine.close()


def _subject(bundle: Bundle, row: Row, effort: Effort, options: Options) -> Subject:
    def opener(bundle: Bundle) -> Engine:
        return load_engine(row.engine, bundle, row.precision, effort.threads, python=effort.python, options=options)

    engine = opener(bundle)
    report = golden.check(bundle, row.precision, engine.infer)
    tensors, _ = golden.load(bundle)
    images = np.resize(tensors, (effort.max_batch_size, *tensors.shape[1:]))
    alone = np.concatenate([engine.infer(image[None]) for image in images])
    return Subject(bundle, opener, engine, report, images, alone, effort.calls)


def _failures(subject: Subject) -> Iterator[tuple[str, str]]:
    for name, check in CHECKS.items():
        try:
            check(subject)
        except Exception as error:  # noqa: BLE001  # a ConformanceError, or whatever the runtime raised meanwhile
            yield name, str(error)


def check_golden_logits(subject: Subject) -> None:
    if not subject.report.ok:
        raise ConformanceError(f"up to {subject.report.max_delta:.3g} off, {subject.report.tolerance:.3g} allowed")


def check_any_batch_size(subject: Subject) -> None:
    for size in range(1, len(subject.images) + 1):
        logits = subject.engine.infer(subject.images[:size])
        if logits.dtype != np.float32:
            raise ConformanceError(f"the logits are {logits.dtype}")
        _compare(f"in a batch of {size}", logits, subject.alone[:size], subject.report.tolerance)


def check_no_neighbours(subject: Subject) -> None:
    """Loud neighbours, as they would show in a scale that is taken over the whole batch."""
    images = subject.images
    quiet = subject.engine.infer(images)
    loud = np.concatenate([images[:1], 100 * images[1:]])
    _compare("beside louder images", subject.engine.infer(loud)[:1], quiet[:1], SAME_SHAPE_TOLERANCE)
    _compare("in another order", subject.engine.infer(images[::-1])[::-1], quiet, SAME_SHAPE_TOLERANCE)


def check_no_drift(subject: Subject) -> None:
    image = subject.images[:1]
    first = subject.engine.infer(image)
    for _ in range(subject.calls // 10):  # what is allocated once
        subject.engine.infer(image)
    before = _memory_bytes()
    for _ in range(subject.calls):
        last = subject.engine.infer(image)
    _compare(f"after {subject.calls} calls", last, first, SAME_SHAPE_TOLERANCE)
    growth = _memory_bytes() - before
    if growth > ALLOWED_GROWTH_BYTES:
        raise ConformanceError(f"in {subject.calls} calls the memory grew by {growth / 1e6:.0f} MB")


def check_concurrent_calls(subject: Subject) -> None:
    with ThreadPoolExecutor(CALLERS) as callers:
        indices = [index % len(subject.images) for index in range(max(CALLERS, subject.calls // 10))]
        answers = callers.map(lambda index: subject.engine.infer(subject.images[index : index + 1]), indices)
        for index, logits in zip(indices, answers, strict=True):
            _compare("in concurrent calls", logits, subject.alone[index : index + 1], SAME_SHAPE_TOLERANCE)


def check_close_frees_memory(subject: Subject) -> None:
    """A leak grows in every round; an allocator's heap may grow once for good, by 30 MB with ONNX Runtime, and the
    least of a round says more than one cycle, after which pages go back or do not, by what lies beside them."""
    _open_and_close(subject)  # what a runtime allocates once
    first = before = min(_open_and_close(subject) for _ in range(CYCLES))
    for _ in range(ROUNDS):
        after = min(_open_and_close(subject) for _ in range(CYCLES))
        if after - before <= ALLOWED_GROWTH_BYTES:
            return
        before = after
    raise ConformanceError(
        f"in {ROUNDS * CYCLES} times of opening and closing the memory grew by {(after - first) / 1e6:.0f} MB"
    )


def _open_and_close(subject: Subject) -> int:
    """Bytes of memory after it."""
    engine = subject.open(subject.bundle)
    engine.infer(subject.images)
    engine.close()
    return _memory_bytes()


def check_corrupt_artifact(subject: Subject) -> None:
    artifact = choose_artifact(subject.engine.name, subject.bundle, subject.engine.precision)
    content = subject.bundle.path(artifact).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        bundle = replace(subject.bundle, folder=Path(folder, "bundle"))
        shutil.copytree(subject.bundle.folder, bundle.folder)
        for what, corrupt in (("empty", b""), ("cut off", content[: len(content) // 2]), ("of noise", b"\x5a" * 999)):
            bundle.path(artifact).write_bytes(corrupt)
            try:
                subject.open(bundle).close()
            except BundleError:
                continue
            except Exception as error:
                raise ConformanceError(f"an artifact that is {what} is a {type(error).__name__}: {error}") from error
            raise ConformanceError(f"an artifact that is {what} was loaded")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "golden logits": check_golden_logits,
    "any batch size": check_any_batch_size,
    "no neighbours": check_no_neighbours,
    "no drift": check_no_drift,
    "concurrent calls": check_concurrent_calls,
    "close frees memory": check_close_frees_memory,
    "corrupt artifact": check_corrupt_artifact,
}


def _compare(when: str, found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> None:
    if found.shape != expected.shape:
        raise ConformanceError(f"{when} the logits have shape {found.shape}, not {expected.shape}")
    delta = float(np.max(np.abs(found - expected)))
    if not delta <= tolerance:  # written so that NaN is caught too
        raise ConformanceError(f"{when} a logit is {delta:.3g} off, {tolerance:.3g} allowed")


def _memory_bytes() -> int:
    """Resident memory of this process, after giving back what is free (proc(5), malloc_trim(3))."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
