"""What an engine is: the network on one runtime. It knows nothing of batching, threads or metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from models.manifest import Precision
from models.store import Bundle


class Engine(Protocol):
    """`input_size` is S, `num_classes` is K below. `infer` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """As in the table of engines."""

    @property
    def precision(self) -> Precision: ...

    @property
    def device(self) -> str:
        """What it really runs on, as the runtime calls it."""

    @property
    def input_size(self) -> int: ...

    @property
    def num_classes(self) -> int: ...

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K), any N; blocks, releases the GIL; may raise anything."""

    def close(self) -> None:
        """Free what the runtime holds. Called when no `infer` is running; none follows."""


@runtime_checkable
class RestartableEngine(Engine, Protocol):
    """An engine that may be unavailable for a while; `infer` raises NotReady then. Whoever uses it may set
    `on_restart`, which is called, from any thread, before each attempt to start it again."""

    on_restart: Callable[[], object]

    @property
    def unavailable_s(self) -> float:
        """How long it has been unavailable, seconds; 0 while it is available."""

    def restart(self) -> None:
        """Begin to restart it; does not wait."""


@runtime_checkable
class ExplainingEngine(Engine, Protocol):
    """An engine that can give the last feature map besides the logits. Callers that do not need it do not pay for
    it."""

    @property
    def gives_features(self) -> bool:
        """Does this artifact have it?"""

    def infer_with_features(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `infer` -> logits (N, K) and feature maps float32 (N, C, h, w). Only where `gives_features`."""


def explaining(engine: Engine) -> ExplainingEngine | None:
    """The engine, if it gives features."""
    return engine if isinstance(engine, ExplainingEngine) and engine.gives_features else None


class EngineFactory(Protocol):
    """What an entry of the table of engines points to: a class with this `open`."""

    def open(self, bundle: Bundle, precision: Precision, threads: int, **options: Any) -> Engine:
        """`options` are this engine's own settings.

        Raises BundleError for an artifact that is missing, does not fit or cannot be loaded, ConfigError for a
        precision that the engine does not support, EngineUnavailable for a missing device.
        """
