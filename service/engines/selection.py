"""Which engine serves, in which precision: what was told, and where that is `auto`, the fastest.

1. what is named is taken, and nothing is chosen in its place;
2. a precision that the manifest does not vouch for is never chosen, nor an engine that fails the golden check;
3. the less exact precision must be clearly faster to be chosen;
4. where only one thing is possible nothing is measured, and the runtime of what is not possible is not imported;
   nor is a precision measured whose engine has shown that a less exact one is far faster than fp32;
5. a choice says what else there was and why it was not taken;
6. fast pixels are served only where the manifest vouches for them.
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
from service.engines.base import Engine, RestartableEngine
from service.engines.capabilities import CAPABILITIES, choose_artifact, has_artifact
from service.engines.check import check_engine
from service.engines.reopening import ReopeningEngine
from service.engines.table import how_to_install, is_installed, load_engine
from service.engines.timing import images_per_second
from service.errors import ConfigError, EngineUnavailable, ServiceError
from service.machine.limits import usable_cpus
from service.settings import Settings

# In the order in which equally fast ones are preferred.
AUTO_ENGINES = ("onnxruntime", "openvino")
# Takes seconds to be imported, so only where none of those can serve.
LAST_RESORT = "mindspore"
EXACTNESS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
CLEARLY_FASTER = 1.1
# Than any fp32: only instructions of its own make a precision so fast, and then a more exact one on the same engine is
# not faster. int8's make four products where fp32 makes one, bf16's two; measured: 3.0 to 3.9. The fp32 may be
# another engine's; those seen differed by a tenth.
FAR_FASTER = 2.5
MEASURE_S = 0.3  # in all, at most; loading, warming up and the golden checks come on top
MEASURED_IMAGES = 16  # at once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """`images_per_second`: measured, if it was; `objection`: why it is not possible here, or was not tried; `golden`:
    of its check."""

    engine: str
    precision: Precision
    images_per_second: float | None = None
    objection: Exception | None = None
    golden: GoldenReport | None = None

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}{self.state}"

    @property
    def state(self) -> str:
        """What is said after its name."""
        if self.objection is not None:
            return f": {self.objection}"
        return f" {self.images_per_second:.0f} images/s" if self.images_per_second else ""


@dataclass(frozen=True)
class Choice:
    """`reason`: why this one, in words; `golden`: of its check, which the fake engine has not."""

    engine: str
    precision: Precision
    reason: str
    candidates: tuple[Candidate, ...]
    golden: GoldenReport | None


Load = Callable[[Candidate], Engine]
Contender = tuple[float, Engine, Candidate]  # with images a second


def open_engine(bundle: Bundle, settings: Settings, load: Load | None = None) -> tuple[Engine, Choice]:
    """The engine that serves, open and checked, and why it is this one; blocks. `load` opens a candidate
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
        reason = "the only one possible" if "auto" in (settings.engine, settings.precision) else "as told"
    else:
        engine, chosen, measured = _fastest(possible, bundle, load)
        candidates = [*measured, *(candidate for candidate in candidates if candidate not in possible)]
        reason = "the fastest"
    if len(candidates) > 1:
        log.info("chose %s %s, %s: %s", engine.name, engine.precision, reason, "; ".join(in_words(candidates)))
    if not isinstance(engine, RestartableEngine):
        engine = ReopeningEngine(engine, lambda: _load_checked(load, chosen, bundle)[0])
    return engine, Choice(engine.name, engine.precision, reason, tuple(candidates), chosen.golden)


def in_words(candidates: Sequence[Candidate]) -> list[str]:
    """Each with its speed or objection; the same objection to several is said once."""
    names: dict[str, list[str]] = {}
    for one in candidates:
        names.setdefault(one.state, []).append(f"{one.engine} {one.precision}")
    return [", ".join(those) + state for state, those in names.items()]


def check_pixels(bundle: Bundle, settings: Settings) -> None:
    """Raises ConfigError for fast pixels that the manifest does not vouch for."""
    doubt = bundle.manifest.doubt_of_fast_pixels()
    if settings.pixels == "fast" and doubt:
        raise ConfigError(
            f"--pixels=fast: {doubt}; serve with --pixels=exact, or measure them: "
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
    """What the settings leave open, the most exact first, and what speaks against it; imports no runtime.

    What engine or bundle have not is left out, unless nothing else is left.
    """
    engines = AUTO_ENGINES if settings.engine == "auto" else (settings.engine,)
    found = [candidate for engine in engines for candidate in _candidates_on(engine, bundle, settings)]
    if settings.engine == "auto" and all(candidate.objection for candidate in found):
        found += _candidates_on(LAST_RESORT, bundle, settings)
    there = [candidate for candidate in found if has_artifact(candidate.engine, bundle, candidate.precision)]
    return sorted(there or found, key=lambda candidate: EXACTNESS.index(candidate.precision))


def _candidates_on(engine: str, bundle: Bundle, settings: Settings) -> list[Candidate]:
    able = CAPABILITIES[engine].precisions
    wanted = tuple(able) if settings.precision == "auto" else (settings.precision,)
    return [
        Candidate(engine, precision, objection=_objection(engine, precision, bundle, settings)) for precision in wanted
    ]


def _objection(engine: str, precision: Precision, bundle: Bundle, settings: Settings) -> Exception | None:
    try:
        engine_options(engine, settings)
        if not CAPABILITIES[engine].formats:
            return None
        choose_artifact(engine, bundle, precision)
    except (ConfigError, BundleError) as error:
        return error
    if not settings.engine_python and not is_installed(engine):
        return EngineUnavailable(f"the engine {engine} is not installed: {how_to_install(engine)}")
    doubt = bundle.manifest.doubt(precision) if settings.precision == "auto" else None
    return BundleError(doubt) if doubt else None


def _objection_of_all(candidates: list[Candidate]) -> Exception:
    """The first one's, with the text of all."""
    objections = [candidate.objection for candidate in candidates if candidate.objection]
    texts = dict.fromkeys(str(objection) for objection in objections)
    return type(objections[0])("; ".join(texts))


def engine_options(engine: str, settings: Settings) -> Mapping[str, str | int]:
    """The settings of one engine only. Raises ConfigError for one that means nothing to this engine."""
    slots = engine_slots(engine, settings)
    if engine == "onnxruntime":
        return {"provider": settings.engine_provider, "slots": slots}
    if engine == "mindspore-lite":
        return {"device": settings.lite_device, "device_id": settings.lite_device_id}
    if settings.engine_provider != "cpu":
        raise ConfigError(f"--engine-provider={settings.engine_provider} is for onnxruntime, not for {engine}")
    return {"slots": slots} if engine == "openvino" else {}


def engine_slots(engine: str, settings: Settings) -> int:
    """How many batches the engine computes at once. On CPUs one for each of its threads: they wait for nobody.

    Raises ConfigError for more than one where the engine takes one at a time.
    """
    able = CAPABILITIES.get(engine)
    if able is None or not able.calls_at_once or settings.engine_python:
        if (settings.engine_slots or 1) > 1:
            raise ConfigError(f"--engine-slots={settings.engine_slots}: {engine} computes one batch at a time here")
        return 1
    on_cpu = settings.engine_provider == "cpu" and engine != "fake"
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
    """The engine, its candidate, and all candidates with what was found out. Two engines are open at most.

    Raises the first one's error if none of them works.
    """
    golden_images, _ = golden.load(bundle)
    images = np.resize(golden_images, (MEASURED_IMAGES, *golden_images.shape[1:]))
    best: Contender | None = None
    found: list[Candidate] = []
    for candidate in _in_order_of_promise(possible):
        try:
            _check_not_outdone(candidate, found)
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


def _in_order_of_promise(possible: Sequence[Candidate]) -> list[Candidate]:
    """The first one, to compare the others with; those engine by engine, the least exact first."""
    first, *others = possible
    engines = list(CAPABILITIES)
    others.sort(key=lambda one: (engines.index(one.engine), -EXACTNESS.index(one.precision)))
    return [first, *others]


def _check_not_outdone(candidate: Candidate, found: Sequence[Candidate]) -> None:
    """Raises ServiceError if it need not be measured any more."""
    fp32 = max((one.images_per_second or 0 for one in found if one.precision == "fp32"), default=0)
    for one in found:
        gain = (one.images_per_second or 0) / fp32 if fp32 else 0
        if one.engine == candidate.engine and one.precision != "fp32" and gain > FAR_FASTER:
            raise ServiceError(f"not measured: {one.precision} is {gain:.1f} times as fast as fp32")


def _better(best: Contender | None, challenger: Contender) -> Contender:
    """The less exact one if it is clearly faster, of equally exact ones the first. Closes the other's engine."""
    if best is None:
        return challenger
    exact, other = sorted((best, challenger), key=lambda one: EXACTNESS.index(one[2].precision))
    winner, loser = (other, exact) if other[0] > CLEARLY_FASTER * exact[0] else (exact, other)
    loser[1].close()
    return winner


def _speed(engine: Engine, images: NDArray[np.float32], seconds: float) -> float:
    """Images a second; closes an engine that fails."""
    try:
        return images_per_second(engine.infer, images, seconds)
    except BaseException:
        engine.close()
        raise
