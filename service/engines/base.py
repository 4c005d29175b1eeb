"""What an engine is: the network on one runtime. Batching, threads and metrics are not its business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.manifest import Artifact, Precision
from models.store import Bundle
from service.errors import ConfigError

CPU = "cpu"


@dataclass(frozen=True)
class Options:
    """What an engine is opened with. `provider`: the device, where an engine can choose (Capabilities.providers)."""

    threads: int
    provider: str = CPU


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, known before it is opened.

    `formats`: the artifacts it reads, the best first. `precisions`: what it can serve -> the precision of the artifact
    that it computes this from.
    """

    formats: tuple[str, ...]
    precisions: Mapping[Precision, Precision]
    providers: tuple[str, ...] = (CPU,)

    def artifact(self, engine: str, bundle: Bundle, precision: Precision) -> Artifact:
        """Raises ConfigError for a precision that the engine has not, BundleError where the bundle has no artifact."""
        if precision not in self.precisions:
            known = ", ".join(self.precisions)
            raise ConfigError(f"the engine {engine} has no precision {precision}; it has: {known}")
        return bundle.artifact(self.formats, self.precisions[precision])


class Engine(Protocol):
    """`input_size` is S, `num_classes` is K below. `infer` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """As in the table of engines."""

    @property
    def precision(self) -> Precision: ...

    @property
    def device(self) -> str:
        """What it really runs on, in the runtime's own words."""

    @property
    def input_size(self) -> int: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def new_batch_sizes_cost(self) -> bool:
        """The first batch of a size takes much longer than the second, so that each size has to be warmed up."""

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K), any N; blocks, releases the GIL; may raise anything."""

    def close(self) -> None:
        """Free what the runtime holds. No `infer` runs any more, and none comes after."""


class EngineFactory(Protocol):
    """What an entry of the table of engines is: a class with these."""

    capabilities: Capabilities

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> Engine:
        """Raises BundleError for an artifact that does not fit or cannot be loaded, ConfigError for a precision that
        it has not, EngineUnavailable for a missing device."""
