"""Opens a bundle and an engine, as far as needed before the first answer: verified, checked and warm."""

from __future__ import annotations

from dataclasses import dataclass

from models.golden import GoldenReport
from models.store import Bundle, open_bundle
from service.classify.tuning import Tuning, tune
from service.engines.base import Engine
from service.engines.check import check_engine
from service.engines.selection import Choice, check_pixels, engine_slots, open_engine
from service.settings import Settings


@dataclass(frozen=True)
class OpenModel:
    """`choice`: why this engine, unless it was handed in; `report`: of its golden check."""

    bundle: Bundle
    engine: Engine
    choice: Choice | None
    report: GoldenReport | None
    slots: int
    tuning: Tuning

    @classmethod
    def open(cls, settings: Settings, engine: Engine | None, measuring: bool) -> OpenModel:
        """Blocks. Raises as Classifier.open; the engine is closed then."""
        bundle = open_bundle(settings.model)
        if not measuring:
            check_pixels(bundle, settings)
        choice: Choice | None = None
        if engine is None:
            engine, choice = open_engine(bundle, settings)
        try:
            slots = engine_slots(engine.name, settings)
            report = choice.golden if choice else check_engine(engine, bundle)  # open_engine has checked it
            tuning = tune(engine, slots, settings.max_batch_size, settings.objective_ms / 1000)
        except BaseException:
            engine.close()
            raise
        return cls(bundle, engine, choice, report, slots, tuning)

    def close(self) -> None:
        self.engine.close()
