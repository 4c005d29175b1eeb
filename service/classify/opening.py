"""Opens a bundle and an engine, as far as needed before the first answer: verified, checked and warm.

A start skips versions that are corrupt or fail the golden check, and opens the newest good one. Only a start does: a
reload has a model to keep, and for a command an older version would be the wrong one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from models.errors import BundleError
from models.explanation.head import Head
from models.golden import GoldenReport
from models.store import Bundle, find_versions
from service.classify.speed.tuning import Tuning, tune
from service.engines.base import Engine
from service.engines.check import check_engine, read_engine_head
from service.engines.selection import Choice, check_pixels, engine_slots, open_engine
from service.engines.trusted import open_trusted
from service.errors import GoldenCheckFailed
from service.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenModel:
    """`choice`: why this engine, unless it was handed in; `report`: of its golden check; `passed_over`: newer versions
    and why they cannot serve."""

    bundle: Bundle
    engine: Engine
    choice: Choice | None
    report: GoldenReport | None
    slots: int
    tuning: Tuning
    head: Head | None
    passed_over: tuple[tuple[str, str], ...] = ()

    @classmethod
    def open_newest_good(cls, settings: Settings, engine: Engine | None = None) -> OpenModel:
        """As `open`. If none is good, the error is the newest one's; with `strict_version` no other is tried."""
        refused: list[tuple[str, Exception]] = []
        for folder in find_versions(settings.model)[: 1 if settings.strict_version else None]:
            try:
                opened = cls.open(settings.model_copy(update={"model": str(folder)}), engine, measuring=False)
            except (BundleError, GoldenCheckFailed) as error:
                log.debug("%s cannot serve", folder, exc_info=True)
                refused.append((folder.name, error))
            else:
                return replace(opened, passed_over=tuple((version, str(error)) for version, error in refused))
        raise refused[0][1]

    @classmethod
    def open(cls, settings: Settings, engine: Engine | None, measuring: bool) -> OpenModel:
        """Blocks. Raises as Classifier.open; the engine is closed then."""
        bundle = open_trusted(settings)
        if not measuring:
            check_pixels(bundle, settings)
        choice: Choice | None = None
        if engine is None:
            engine, choice = open_engine(bundle, settings)
        try:
            slots = engine_slots(engine.name, settings)
            report = choice.golden if choice else check_engine(engine, bundle)  # open_engine has checked it
            tuning = tune(engine, slots, settings.max_batch_size, settings.objective_ms / 1000)
            head = read_engine_head(engine, bundle)
        except BaseException:
            engine.close()
            raise
        return cls(bundle, engine, choice, report, slots, tuning, head)

    def warn(self) -> None:
        """If it is not the newest version."""
        manifest = self.bundle.manifest
        for version, reason in self.passed_over:
            log.error(
                "version %s of %s cannot serve, the older %s is opened: %s",
                version,
                manifest.name,
                manifest.version,
                reason,
            )

    def close(self) -> None:
        self.engine.close()
