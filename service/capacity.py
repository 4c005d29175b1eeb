"""How many pods a load needs, from how long the pod's parts take; arithmetic only.

1. the batches are the largest that leave an image time to wait for one and to be in the next;
2. with one pod away the others still carry the load, and with all of them none is busier than `BUSY`;
3. a deadline that no number of pods can keep is said, with the shortest one that can be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# An image may come when a batch has just started: it waits for that one and is in the next, which is two batches and
# its own decoding. What is left of the deadline is for uploads, bursts and noise.
PLANNED_SHARE = 0.8
# A larger batch must cost an image this much less; otherwise it only makes everybody wait longer.
GAIN = 0.03
# Work comes in bursts: a pod that is busier than this on average has queues.
BUSY = 0.7
# The autoscaler adds pods when images wait for longer than this part of the deadline.
WAITING_SHARE = 0.2
# Above what was measured and what is allowed for.
MEMORY_MARGIN = 1.25
MEMORY_STEP_BYTES = 256 << 20
# Pillow keeps an RGB image in four bytes a pixel.
BYTES_PER_PIXEL = 4


@dataclass(frozen=True)
class Measured:
    """One pod. `batch_s`: images -> seconds in the engine with all `cpus`; `decode_s`: seconds of one CPU an image.

    `shares_cpus`: whether the engine computes on the CPUs that decode, or on a device of its own.
    """

    cpus: int
    decode_s: float
    batch_s: Mapping[int, float]
    shares_cpus: bool
    resident_bytes: int

    def image_s(self, batch: int) -> float:
        """Seconds of an image in the engine, in batches of this size."""
        return self.batch_s[batch] / batch

    def images_per_second(self, batch: int) -> float:
        """What the pod does at most."""
        decode_s = self.decode_s / self.cpus
        if self.shares_cpus:
            return 1 / (self.image_s(batch) + decode_s)
        return 1 / max(self.image_s(batch), decode_s)


@dataclass(frozen=True)
class Limits:
    """What the settings allow at once."""

    max_image_pixels: int
    max_body_bytes: int
    max_queue_images: int
    input_size: int


@dataclass(frozen=True)
class Plan:
    """`images_per_second` and `memory_bytes` are of one pod; the targets are averages over the pods."""

    max_batch_size: int
    images_per_second: float
    replicas: int
    min_replicas: int
    max_replicas: int
    busy_share: float
    predicted_wait_s: float
    queue_depth: int
    cpus: int
    memory_bytes: int


class Impossible(Exception):
    """No number of pods keeps the deadline. The text says which one can be kept."""


def plan(measured: Measured, limits: Limits, *, rate: float, deadline_s: float) -> Plan:
    """`rate`: images a second at the peak. Raises Impossible."""
    batch = largest_batch(measured, deadline_s)
    speed = measured.images_per_second(batch)
    replicas = max(2, math.ceil(rate / (BUSY * speed)), math.ceil(rate / speed) + 1)
    waiting_s = WAITING_SHARE * deadline_s
    return Plan(
        max_batch_size=batch,
        images_per_second=speed,
        replicas=replicas,
        min_replicas=2,
        max_replicas=2 * replicas,
        busy_share=BUSY * speed * measured.image_s(batch),
        predicted_wait_s=waiting_s,
        queue_depth=max(1, math.floor(waiting_s * speed)),
        cpus=measured.cpus,
        memory_bytes=memory_bytes(measured, limits),
    )


def largest_batch(measured: Measured, deadline_s: float) -> int:
    """Raises Impossible."""
    sizes = sorted(measured.batch_s)
    best = sizes[0]
    shortest_s = _longest_s(measured, best) / PLANNED_SHARE
    if shortest_s > deadline_s:
        raise Impossible(
            f"an image takes up to {_longest_s(measured, best) * 1000:.0f} ms alone in an idle pod, so that no number "
            f"of pods keeps {deadline_s * 1000:g} ms; plan with {math.ceil(shortest_s * 1000)} ms or more, with more "
            "CPUs a pod, or with a faster precision or network"
        )
    for size in sizes[1:]:
        if _longest_s(measured, size) > PLANNED_SHARE * deadline_s:
            break
        if measured.image_s(size) < (1 - GAIN) * measured.image_s(best):
            best = size
    return best


def _longest_s(measured: Measured, batch: int) -> float:
    return measured.decode_s + 2 * measured.batch_s[batch]


def memory_bytes(measured: Measured, limits: Limits) -> int:
    """What was measured, a full queue of tensors, and for each CPU one of the largest images with its request."""
    queued = limits.max_queue_images * 3 * limits.input_size**2 * 4
    decoding = measured.cpus * (limits.max_image_pixels * BYTES_PER_PIXEL + limits.max_body_bytes)
    needed = MEMORY_MARGIN * (measured.resident_bytes + queued + decoding)
    return math.ceil(needed / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES
