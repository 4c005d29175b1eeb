"""Which engine serves, in which precision: the configured one, or with `auto` the fastest.

1. a configured engine or precision is used, and never replaced by another;
2. `auto` never chooses a precision that the manifest does not vouch for, nor an engine that fails the golden check;
3. a less exact precision is chosen only if it is clearly faster;
4. if only one candidate is possible, nothing is measured; the runtimes of impossible ones are not imported; and once an
   engine has shown that a less exact precision is far faster than fp32, neither its more exact ones nor the fp32 of
   others are measured;
5. a choice lists the other candidates, and why they were not chosen;
6. fast pixels are served only if the manifest vouches for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models import golden
from models.errors import BundleError, ContractError
from models.golden import GoldenReport
from models.manifest import Precision
from models.store import Bundle
from service.engine_table import ENGINES
from service.engines.artifacts import choose_artifact, has_artifact
from service.engines.base import Engine, RestartableEngine
from service.engines.check import check_engine
from service.engines.loading import is_installed, load_engine
from service.engines.restarting import restart_in_this_process
from service.engines.timing import images_per_second
from service.errors import ConfigError, EngineUnavailable, ServiceError
from service.machine.limits import usable_cpus
from service.settings import Settings

# Of equally fast ones the first is preferred.
AUTO_ENGINES = ("onnxruntime", "openvino", "ncnn")
# Its import takes seconds, so it is tried only if none of those can serve.
LAST_RESORT = "mindspore"
EXACTNESS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
CLEARLY_FASTER = 1.1
# Faster than any fp32: only special instructions make a precision so fast, and then a more exact one on the same engine
# is not faster. Those of int8 make four products where fp32 makes one, those of bf16 two; measured: 3.0 to 3.9. No
# other engine's fp32 catches up: those seen are up to a tenth faster, 1.6 times with Winograd's algorithm (ncnn).
FAR_FASTER = 2.5
MEASURE_S = 0.3  # at most, for all candidates; loading, warm-up and golden checks come on top
MEASURED_IMAGES = 16  # in a batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """`images_per_second`: if measured; `objection`: why it is not possible here, or was not tried; `golden`: its
    golden report."""

    engine: str
    precision: Precision
    images_per_second: float | None = None
    objection: Exception | None = None
    golden: GoldenReport | None = None

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}{self.state}"

    @property
    def state(self) -> str:
        """Follows its name in a log line."""
        if self.objection is not None:
            return f": {self.objection}"
        return f" {self.images_per_second:.0f} images/s" if self.images_per_second else ""


@dataclass(frozen=True)
class Choice:
    """`reason`: why this one, in words; `golden`: the report of its golden check, which the fake engine lacks."""

    engine: str
    precision: Precision
    reason: str
    candidates: tuple[Candidate, ...]
    golden: GoldenReport | None


Load = Callable[[Candidate], Engine]
Contender = tuple[float, Engine, Candidate]  # the first: images per second


def open_engine(bundle: Bundle, settings: Settings, load: Load | None = None) -> tuple[Engine, Choice]:
    """The engine that serves, open and checked, and why it was chosen; blocks. `load` opens a candidate
    [default: load_engine].

    Raises BundleError, ConfigError or EngineUnavailable if nothing can serve, GoldenCheckFailed if nothing passes.
    """
    load = load or partial(_load, bundle, settings)
    candidates = find_candidates(bundle, settings)
    possible = [candidate for candidate in candidates if candidate.objection is None]
    if not possible:
        raise _objection_of_all(candidates)
    if len(possible) == 1:
        chosen = possible[0]
        engine, chosen = _load_checked(load, chosen, bundle)
        reason = "the only one possible" if "auto" in (settings.engine, settings.precision) else "as configured"
    else:
        engine, chosen, measured = _fastest(possible, bundle, load)
        candidates = [*measured, *(candidate for candidate in candidates if candidate not in possible)]
        reason = "the fastest"
    if len(candidates) > 1:
        log.info("chose %s %s, %s: %s", engine.name, engine.precision, reason, "; ".join(in_words(candidates)))
    if not isinstance(engine, RestartableEngine):
        engine = restart_in_this_process(engine, partial(load, chosen), partial(check_engine, bundle=bundle))
    return engine, Choice(engine.name, engine.precision, reason, tuple(candidates), chosen.golden)


def in_words(candidates: Sequence[Candidate]) -> list[str]:
    """Each with its speed or objection; candidates with the same objection share a line."""
    names: dict[str, list[str]] = {}
    for one in candidates:
        names.setdefault(one.state, []).append(f"{one.engine} {one.precision}")
    return [", ".join(those) + state for state, those in names.items()]


def check_pixels(bundle: Bundle, settings: Settings) -> None:
    """Raises ConfigError if the settings ask for fast pixels and the manifest does not vouch for them."""
    doubt = bundle.manifest.doubt_of_fast_pixels()
    if settings.pixels == "fast" and doubt:
        raise ConfigError(
            f"--pixels=fast: {doubt}; serve with --pixels=exact, or measure the effect: "
            "python -m training.quantize --fast_pixels FOLDER"
        )


def _load_checked(load: Load, candidate: Candidate, bundle: Bundle) -> tuple[Engine, Candidate]:
    engine = load(candidate)
    try:
        report = check_engine(engine, bundle)
    except BaseException:
        engine.close()
        raise
    return engine, replace(candidate, golden=report)


def find_candidates(bundle: Bundle, settings: Settings) -> list[Candidate]:
    """What the settings allow, the most exact first, with the objections to each; imports no runtime.

    Candidates that lack an artifact are left out, unless there are no others.
    """
    engines = AUTO_ENGINES if settings.engine == "auto" else (settings.engine,)
    found = [candidate for engine in engines for candidate in _candidates_on(engine, bundle, settings)]
    if settings.engine == "auto" and all(candidate.objection for candidate in found):
        found += _candidates_on(LAST_RESORT, bundle, settings)
    complete = [candidate for candidate in found if has_artifact(candidate.engine, bundle, candidate.precision)]
    return sorted(complete or found, key=lambda candidate: EXACTNESS.index(candidate.precision))


def _candidates_on(engine: str, bundle: Bundle, settings: Settings) -> list[Candidate]:
    supported = tuple(ENGINES[engine].precisions)
    wanted = supported if settings.precision == "auto" else (settings.precision,)
    return [
        Candidate(engine, precision, objection=_objection(engine, precision, bundle, settings)) for precision in wanted
    ]


def _objection(engine: str, precision: Precision, bundle: Bundle, settings: Settings) -> Exception | None:
    try:
        engine_options(engine, settings)
        if not ENGINES[engine].formats:
            return None
        choose_artifact(engine, bundle, precision)
    except (ConfigError, BundleError) as error:
        return error
    if not settings.engine_python and not is_installed(engine):
        return EngineUnavailable(f"the engine {engine} is not installed: {ENGINES[engine].how_to_install}")
    doubt = bundle.manifest.doubt(precision) if settings.precision == "auto" else None
    return BundleError(doubt) if doubt else None


def _objection_of_all(candidates: list[Candidate]) -> Exception:
    """Of the first one's class, with the texts of all."""
    objections = [candidate.objection for candidate in candidates if candidate.objection]
    texts = dict.fromkeys(str(objection) for objection in objections)
    return type(objections[0])("; ".join(texts))


def engine_options(engine: str, settings: Settings) -> Mapping[str, str | int]:
    """The further arguments of the engine's `open`. Raises ConfigError for a provider that the engine does not have."""
    slots, options = engine_slots(engine, settings), ENGINES[engine].options
    if settings.engine_provider != "cpu" and "provider" not in options:
        raise ConfigError(f"--engine-provider={settings.engine_provider} is for onnxruntime, not for {engine}")
    return {
        option: slots if setting == "engine_slots" else getattr(settings, setting)
        for option, setting in options.items()
    }


def engine_slots(engine: str, settings: Settings) -> int:
    """How many batches the engine computes at once. On a CPU one per thread, so that no thread waits for another.

    Raises ConfigError for more than one if the engine takes one at a time.
    """
    record = ENGINES.get(engine)
    if record is None or not record.concurrent_calls or settings.engine_python:
        if (settings.engine_slots or 1) > 1:
            raise ConfigError(f"--engine-slots={settings.engine_slots}: {engine} computes one batch at a time here")
        return 1
    on_cpu = settings.engine_provider == "cpu" and bool(record.formats)
    return settings.engine_slots or (engine_threads(settings) if on_cpu else 1)


def engine_threads(settings: Settings) -> int:
    return settings.engine_threads or usable_cpus()


def _load(bundle: Bundle, settings: Settings, candidate: Candidate) -> Engine:
    return load_engine(
        candidate.engine,
        bundle,
        candidate.precision,
        engine_threads(settings),
        python=settings.engine_python,
        options=engine_options(candidate.engine, settings),
    )


def _fastest(possible: Sequence[Candidate], bundle: Bundle, load: Load) -> tuple[Engine, Candidate, list[Candidate]]:
    """The fastest engine, its candidate, and all candidates with their speeds or objections. At most two engines are
    open at a time.

    Raises the first one's error if none of them works.
    """
    golden_images, _ = golden.load(bundle)
    images = np.resize(golden_images, (MEASURED_IMAGES, *golden_images.shape[1:]))
    best: Contender | None = None
    found: list[Candidate] = []
    for candidate in _in_measuring_order(possible):
        try:
            _check_worth_measuring(candidate, found)
            engine, candidate = _load_checked(load, candidate, bundle)
            speed = _speed(engine, images, MEASURE_S / len(possible))
        except (ContractError, ServiceError) as error:
            found.append(replace(candidate, objection=error))
            continue
        found.append(replace(candidate, images_per_second=speed))
        best = _better(best, (speed, engine, candidate))
    if best is None:
        raise _objection_of_all(found)
    return best[1], best[2], found


def _in_measuring_order(possible: Sequence[Candidate]) -> list[Candidate]:
    """The first one, which the others are compared with; then engine by engine, the least exact first."""
    first, *others = possible
    engines = list(ENGINES)
    others.sort(key=lambda one: (engines.index(one.engine), -EXACTNESS.index(one.precision)))
    return [first, *others]


def _check_worth_measuring(candidate: Candidate, found: Sequence[Candidate]) -> None:
    """Raises ServiceError if it cannot be the fastest any more."""
    fp32 = max((one.images_per_second or 0 for one in found if one.precision == "fp32"), default=0)
    for one in found:
        gain = (one.images_per_second or 0) / fp32 if fp32 else 0
        outdone = candidate.precision == "fp32" or one.engine == candidate.engine
        if outdone and one.precision != "fp32" and gain > FAR_FASTER:
            raise ServiceError(f"not measured: {one.precision} is {gain:.1f} times as fast as fp32")


def _better(best: Contender | None, challenger: Contender) -> Contender:
    """The less exact one if it is clearly faster, else the more exact one; if equally exact, the first. Closes the
    other's engine."""
    if best is None:
        return challenger
    exact, other = sorted((best, challenger), key=lambda one: EXACTNESS.index(one[2].precision))
    winner, loser = (other, exact) if other[0] > CLEARLY_FASTER * exact[0] else (exact, other)
    loser[1].close()
    return winner


def _speed(engine: Engine, images: NDArray[np.float32], seconds: float) -> float:
    """Images per second; closes an engine that fails."""
    try:
        return images_per_second(engine.infer, images, seconds)
    except BaseException:
        engine.close()
        raise
