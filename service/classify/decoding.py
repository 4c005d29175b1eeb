"""The threads that decode images, and what their work costs.

1. at most `threads` images are decoded at once; the others wait in the pool's queue;
2. an image whose caller leaves while it waits there is never decoded;
3. a wrong image raises ImageError and counts as a decode failure; the next one is decoded as usual;
4. the time until all images here are decoded is known, from a moving average of the decode times.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import open_image, read_tensor
from service.classify.speed import FADING
from service.machine.limits import usable_cpus
from service.machine.priority import lower_priority
from service.observe.drift import input_signals
from service.observe.metrics import TENSOR, Metrics
from service.settings import Settings

# The weight of the newest image in the moving average of decode times.
NEWEST_WEIGHT = 0.1


class DecodingStopped(Exception):
    """The pool closed before a thread began with this image."""


@dataclass(frozen=True)
class Decoded:
    """`tensor` float32 (3, S, S). `pixels`: width times height of the encoded image, None if it came as a tensor;
    `seconds`: the work in the thread, without the wait for one."""

    tensor: NDArray[np.float32]
    image_format: str
    pixels: int | None
    seconds: float

    @classmethod
    def from_tensor(cls, tensor: NDArray[np.float32]) -> Decoded:
        """A caller that preprocesses its images itself sends this."""
        return cls(tensor, TENSOR, None, 0.0)

    def signals(self, spec: Preprocess) -> dict[str, float]:
        """The drift signals of this input."""
        size = {} if self.pixels is None else {"image_pixels": float(self.pixels)}
        return size | input_signals(self.tensor, spec)


class DecodePool:
    """`images`: how many are being decoded or wait for a thread. `image_s`: moving average of the seconds that an image
    takes, 0 before the first. Use it within one event loop: only `_to_tensor` runs in the threads."""

    def __init__(self, spec: Preprocess, settings: Settings, metrics: Metrics) -> None:
        self.threads = settings.decode_threads or usable_cpus()
        self.images = 0
        self.image_s = 0.0
        self._spec = spec
        self._settings = settings
        self._metrics = metrics
        self._closed = False
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="decode", initializer=lower_priority)

    @property
    def backlog_s(self) -> float:
        """Seconds until all images that are here now are decoded."""
        return self.images * self.image_s / self.threads

    async def decode(self, encoded: bytes) -> Decoded:
        """Raises ImageError, and DecodingStopped if the pool closes first. Cancelling it takes the image out of the
        queue."""
        self.images += 1
        try:
            decoded = await asyncio.get_running_loop().run_in_executor(
                self._executor, _to_tensor, encoded, self._spec, self._settings
            )
        except ImageError as error:
            self._metrics.decode_failures.labels(error.code).inc()
            raise
        except asyncio.CancelledError:
            if self._closed:  # cancelled by `close`, not by the caller
                raise DecodingStopped from None
            raise
        finally:
            self.images -= 1
        self._learn(decoded.seconds)
        return decoded

    def _learn(self, seconds: float) -> None:
        self.image_s += NEWEST_WEIGHT * (seconds - self.image_s) if self.image_s else seconds

    def fade(self) -> None:
        """Lower the estimate a little. Called when it makes us reject a request: no measurement would correct it."""
        self.image_s *= FADING

    def close(self) -> None:
        """Cancel what no thread has begun; does not wait for the rest."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)


def _to_tensor(encoded: bytes, spec: Preprocess, settings: Settings) -> Decoded:
    """In a thread of the pool. Raises ImageError."""
    started = time.monotonic()
    image = open_image(encoded, settings.max_image_pixels)
    image_format, pixels = str(image.format).lower(), image.width * image.height
    tensor = read_tensor(image, spec, settings.pixels)
    return Decoded(tensor, image_format, pixels, time.monotonic() - started)
