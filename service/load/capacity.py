"""How many pods a load needs, from how long the pod's parts take; arithmetic only.

1. with one pod away the others still carry the load, and with all of them none is busier than `BUSY`;
2. a deadline that no number of pods can keep is said, with the shortest one that can be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# An image may come when a batch has just started: it waits for that one and is in the next, which is two batches and
# its own decoding. What is left of the deadline is for uploads, bursts and noise.
PLANNED_SHARE = 0.8
# Work comes in bursts: a pod that is busier than this on average has queues.
BUSY = 0.7
# The autoscaler adds pods when images wait for longer than this part of the deadline.
WAITING_SHARE = 0.2
# Above what was measured and what is allowed for.
MEMORY_MARGIN = 1.25
MEMORY_STEP_BYTES = 256 << 20


@dataclass(frozen=True)
class Measured:
    """One pod: seconds of one CPU to decode an image, of a batch of one in the engine, and of an image in full batches
    with all slots of the engine at work. `shares_cpus`: whether the engine computes on the CPUs that decode, or on a
    device of its own.
    """

    cpus: int
    decode_s: float
    alone_s: float
    image_s: float
    shares_cpus: bool
    resident_bytes: int

    @property
    def images_per_second(self) -> float:
        """What the pod does at most."""
        decode_s = self.decode_s / self.cpus
        return 1 / (self.image_s + decode_s if self.shares_cpus else max(self.image_s, decode_s))

    @property
    def shortest_deadline_s(self) -> float:
        return (self.decode_s + 2 * self.alone_s) / PLANNED_SHARE


@dataclass(frozen=True)
class Plan:
    """`memory_bytes` is one pod's; the last three are the autoscaler's targets, averages over the pods."""

    replicas: int
    min_replicas: int
    max_replicas: int
    memory_bytes: int
    busy_share: float
    predicted_wait_s: float
    queue_depth: int


class Impossible(Exception):
    """No number of pods keeps the deadline. The text says which one can be kept."""


def plan(measured: Measured, held_bytes: int, *, rate: float, deadline_s: float) -> Plan:
    """`held_bytes`: what images and answers may take beside what was measured; `rate`: images a second at the peak.

    Raises Impossible.
    """
    if measured.shortest_deadline_s > deadline_s:
        raise Impossible(
            f"no number of pods like this keeps {deadline_s * 1000:g} ms: one image alone decodes in "
            f"{measured.decode_s * 1000:.1f} ms and computes in {measured.alone_s * 1000:.1f}; plan with "
            f"{math.ceil(measured.shortest_deadline_s * 1000)} ms or more, with more CPUs, or with a faster precision"
        )
    speed = measured.images_per_second
    replicas = max(2, math.ceil(rate / (BUSY * speed)), math.ceil(rate / speed) + 1)
    waiting_s = WAITING_SHARE * deadline_s
    memory_bytes = MEMORY_MARGIN * (measured.resident_bytes + held_bytes)
    return Plan(
        replicas=replicas,
        min_replicas=2,
        max_replicas=2 * replicas,
        memory_bytes=math.ceil(memory_bytes / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES,
        busy_share=BUSY * speed * measured.image_s,
        predicted_wait_s=waiting_s,
        queue_depth=max(1, math.floor(waiting_s * speed)),
    )
