"""What every engine must do, in every precision: checked by the tests, and for users by `repvgg inspect --verify`.

1. it reproduces the golden logits within the manifest's tolerance;
2. it takes any batch size from one to the largest;
3. an image's answer does not depend on the other images of its batch;
4. the last of many calls gives the same answer as the first, and memory does not grow;
5. concurrent calls give the same answers as single ones;
6. `close` frees the memory;
7. a corrupt artifact raises BundleError;
8. where it gives features, they explain its logits, in a batch as alone.

Each engine is checked in a process of its own: if it dies, that is a failure to report, and what a runtime sets in its
process (oneDNN's instructions, threads, logs) does not affect the next one.
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
from service.engine_table import ENGINES
from service.engines.artifacts import choose_artifact
from service.engines.base import Engine, explaining
from service.engines.check import check_golden
from service.engines.loading import is_installed, load_engine
from service.engines.timing import images_per_second
from service.errors import EngineUnavailable

# Between two runs of the same shape, for logits around 10: only the last bits of fp32 may differ.
SAME_SHAPE_TOLERANCE = 1e-5
# Of the largest feature. Batches may be computed in another order, and int8 rounds what lies between two steps.
FEATURE_SHARE = 0.05
CALLERS = 4
CYCLES, ROUNDS = 5, 3
ALLOWED_GROWTH_BYTES = 16 << 20
MEASURE_S = 1.0

Options = Mapping[str, str | int]
T = TypeVar("T")


class ConformanceError(Exception):
    """An engine fails a check. The text says what happened."""


@dataclass(frozen=True)
class Subject:
    """The engine under test. `open` opens it for a bundle. `report`: of its golden check; `images`: float32
    (M, 3, S, S), the largest batch; `alone`: float32 (M, K), its answers to each of them alone; `calls`: how many calls
    a check makes."""

    bundle: Bundle
    open: Callable[[Bundle], Engine]
    engine: Engine
    report: golden.GoldenReport
    images: NDArray[np.float32]
    alone: NDArray[np.float32]
    calls: int


@dataclass(frozen=True)
class Row:
    """The findings for one engine in one precision. `unavailable`: why it was not checked; `failures`: check -> what
    happened; the speed is that of the largest batch."""

    engine: str
    precision: Precision
    unavailable: str | None = None
    max_delta: float | None = None
    top1_agreement: float | None = None
    images_per_second: float | None = None
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Effort:
    """How an engine is opened and how thoroughly it is checked: `max_batch_size` images at once, `calls` calls.

    `python`: the interpreter for a process of its own, if any.
    """

    threads: int
    max_batch_size: int
    calls: int
    python: str = ""


def verify(bundle: Bundle, engines: Mapping[str, Options], effort: Effort) -> Iterator[Row]:
    """Yields a row for each engine and each of its precisions, as they are found. An engine's options are further
    arguments of its `open`."""
    for engine, options in engines.items():
        for precision in ENGINES[engine].precisions:
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
    return None if python or is_installed(engine) else f"not installed: {ENGINES[engine].how_to_install}"


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
    report = check_golden(engine, bundle)
    tensors, _ = golden.load(bundle)
    images = np.resize(tensors, (effort.max_batch_size, *tensors.shape[1:]))
    alone = np.concatenate([engine.infer(image[None]) for image in images])
    return Subject(bundle, opener, engine, report, images, alone, effort.calls)


def _failures(subject: Subject) -> Iterator[tuple[str, str]]:
    for name, check in CHECKS.items():
        try:
            check(subject)
        except Exception as error:  # noqa: BLE001  # a ConformanceError, or anything from the runtime
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


def check_features(subject: Subject) -> None:
    """`check_golden` compares them with the logits of each image; here in one batch."""
    if engine := explaining(subject.engine):
        logits, features = engine.infer_with_features(subject.images)
        _compare("beside features", logits, subject.alone, subject.report.tolerance)
        for image, row in zip(subject.images, features, strict=True):
            alone = engine.infer_with_features(image[None])[1][0]
            _compare("in a batch", row, alone, FEATURE_SHARE * max(1.0, float(np.abs(alone).max())), what="feature")


def check_no_neighbours(subject: Subject) -> None:
    """Much larger values next to an image would show up in a scale that is computed over the whole batch."""
    images = subject.images
    quiet = subject.engine.infer(images)
    loud = np.concatenate([images[:1], 100 * images[1:]])
    _compare("beside louder images", subject.engine.infer(loud)[:1], quiet[:1], SAME_SHAPE_TOLERANCE)
    _compare("in another order", subject.engine.infer(images[::-1])[::-1], quiet, SAME_SHAPE_TOLERANCE)


def check_no_drift(subject: Subject) -> None:
    image = subject.images[:1]
    first = subject.engine.infer(image)
    for _ in range(subject.calls // 10):  # let it allocate what it allocates once
        subject.engine.infer(image)
    before = _memory_bytes()
    for _ in range(subject.calls):
        last = subject.engine.infer(image)
    _compare(f"after {subject.calls} calls", last, first, SAME_SHAPE_TOLERANCE)
    growth = _memory_bytes() - before
    if growth > ALLOWED_GROWTH_BYTES:
        raise ConformanceError(f"memory grew by {growth / 1e6:.0f} MB in {subject.calls} calls")


def check_concurrent_calls(subject: Subject) -> None:
    with ThreadPoolExecutor(CALLERS) as callers:
        indices = [index % len(subject.images) for index in range(max(CALLERS, subject.calls // 10))]
        answers = callers.map(lambda index: subject.engine.infer(subject.images[index : index + 1]), indices)
        for index, logits in zip(indices, answers, strict=True):
            _compare("in concurrent calls", logits, subject.alone[index : index + 1], SAME_SHAPE_TOLERANCE)


def check_close_frees_memory(subject: Subject) -> None:
    """A leak grows in every round. An allocator's heap may grow once for good, by 30 MB with ONNX Runtime. Whether
    pages are returned depends on neighbouring allocations, so that a round's least says more than a single cycle."""
    _open_and_close(subject)  # lets the runtime allocate what it allocates once
    first = before = min(_open_and_close(subject) for _ in range(CYCLES))
    for _ in range(ROUNDS):
        after = min(_open_and_close(subject) for _ in range(CYCLES))
        if after - before <= ALLOWED_GROWTH_BYTES:
            return
        before = after
    raise ConformanceError(
        f"memory grew by {(after - first) / 1e6:.0f} MB while it was opened and closed {ROUNDS * CYCLES} times"
    )


def _open_and_close(subject: Subject) -> int:
    """Memory of this process afterwards."""
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
        for what, corrupt in (("empty", b""), ("truncated", content[: len(content) // 2]), ("noise", b"\x5a" * 999)):
            bundle.path(artifact).write_bytes(corrupt)
            try:
                subject.open(bundle).close()
            except BundleError:
                continue
            except Exception as error:
                raise ConformanceError(f"an artifact that is {what} raises {type(error).__name__}: {error}") from error
            raise ConformanceError(f"an artifact that is {what} was loaded")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "golden logits": check_golden_logits,
    "any batch size": check_any_batch_size,
    "features": check_features,
    "no neighbours": check_no_neighbours,
    "no drift": check_no_drift,
    "concurrent calls": check_concurrent_calls,
    "close frees memory": check_close_frees_memory,
    "corrupt artifact": check_corrupt_artifact,
}


def _compare(
    when: str, found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float, what: str = "logit"
) -> None:
    if found.shape != expected.shape:
        raise ConformanceError(f"{when} the {what}s have shape {found.shape}, not {expected.shape}")
    delta = float(np.max(np.abs(found - expected)))
    if not delta <= tolerance:  # in this form NaN fails too
        raise ConformanceError(f"{when} a {what} is {delta:.3g} off, {tolerance:.3g} allowed")


def _memory_bytes() -> int:
    """Resident memory of this process, once free memory is returned (proc(5), malloc_trim(3))."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
