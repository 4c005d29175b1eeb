"""How many pods a load needs, computed from the measured stage times of one pod; arithmetic only.

1. with one pod down the others still carry the load, and with all of them up none is busier than MAX_BUSY_SHARE;
2. a deadline that no number of pods can meet is rejected, with the shortest one that can be met.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from service.classify.speed.tuning import Tuning
from service.load.cost import core_hours_per_million, describe_cost

# An image that arrives just after a batch has started waits for that batch and is computed in the next one: two
# batches plus its own decoding. The rest of the deadline is for uploads, bursts and noise.
PLANNED_SHARE = 0.8
# Work comes in bursts: a pod that is busier than this on average builds up queues.
MAX_BUSY_SHARE = 0.7
# The autoscaler adds pods when images wait longer than this share of the deadline.
WAITING_SHARE = 0.2
# Factor on the memory that was measured and reserved.
MEMORY_MARGIN = 1.25
MEMORY_STEP_BYTES = 256 << 20


@dataclass(frozen=True)
class Measured:
    """One pod. `decode_s`: CPU seconds to decode an image; `alone_s`: engine time of a batch of one; `image_s`: engine
    time per image in full batches with all slots busy; `shares_cpus`: the engine runs on the CPUs that decode, not on a
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
        """The pod's maximum throughput."""
        decode_s = self.decode_s / self.cpus
        return 1 / (self.image_s + decode_s if self.shares_cpus else max(self.image_s, decode_s))

    @property
    def core_hours_per_million(self) -> float:
        """For a million images, at that throughput."""
        return core_hours_per_million(self.cpus / self.images_per_second)

    @property
    def shortest_deadline_s(self) -> float:
        return (self.decode_s + 2 * self.alone_s) / PLANNED_SHARE


@dataclass(frozen=True)
class Plan:
    """`memory_bytes` is per pod; `busy_share`, `predicted_wait_s` and `queue_depth` are the autoscaler's targets, as
    averages over the pods; `core_hours_per_million`: for a million images, at the planned rate."""

    replicas: int
    min_replicas: int
    max_replicas: int
    memory_bytes: int
    busy_share: float
    predicted_wait_s: float
    queue_depth: int
    core_hours_per_million: float


class Impossible(Exception):
    """No number of pods can meet the deadline. The text names the shortest one that can be met."""


def plan(measured: Measured, held_bytes: int, *, rate: float, deadline_s: float) -> Plan:
    """`held_bytes`: memory for queued images and cached answers, on top of what was measured; `rate`: peak images/s.

    Raises Impossible.
    """
    if measured.shortest_deadline_s > deadline_s:
        raise Impossible(
            f"no number of pods like this one can meet {deadline_s * 1000:g} ms: a single image takes "
            f"{measured.decode_s * 1000:.1f} ms to decode and {measured.alone_s * 1000:.1f} ms to compute; allow "
            f"{math.ceil(measured.shortest_deadline_s * 1000)} ms or more, add CPUs, or use a faster precision"
        )
    speed = measured.images_per_second
    replicas = max(2, math.ceil(rate / (MAX_BUSY_SHARE * speed)), math.ceil(rate / speed) + 1)
    waiting_s = WAITING_SHARE * deadline_s
    memory_bytes = MEMORY_MARGIN * (measured.resident_bytes + held_bytes)
    return Plan(
        replicas=replicas,
        min_replicas=2,
        max_replicas=2 * replicas,
        memory_bytes=math.ceil(memory_bytes / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES,
        busy_share=MAX_BUSY_SHARE * speed * measured.image_s,
        predicted_wait_s=waiting_s,
        queue_depth=max(1, math.floor(waiting_s * speed)),
        core_hours_per_million=core_hours_per_million(replicas * measured.cpus / rate),
    )


def describe(
    measured: Measured, found: Plan, tuning: Tuning, *, rate: float, deadline_s: float, price: float | None = None
) -> Iterator[tuple[str, str]]:
    """(topic, text) pairs. `price`: of a core for an hour."""
    times = ", ".join(f"t({images}) {seconds * 1000:.2f}" for images, seconds in tuning.batch_s.items())
    yield "measured", f"decode {measured.decode_s * 1000:.2f} ms; {times} ms; {measured.resident_bytes >> 20} MiB"
    yield (
        "pod",
        f"cpu {measured.cpus}, memory {found.memory_bytes >> 20}Mi; at most {measured.images_per_second:.0f} images/s, "
        f"in batches of up to {tuning.max_batch_size}",
    )
    yield "replicas", f"{found.replicas} for {rate:g} images/s; one of them may be down"
    yield (
        "cost",
        f"{describe_cost(found.core_hours_per_million, price)}; {measured.core_hours_per_million:.3g} core hours if "
        "every core were always busy",
    )
    yield (
        "autoscale",
        f"minReplicas {found.min_replicas}, maxReplicas {found.max_replicas}; averages: "
        f"repvgg_engine_busy_share {found.busy_share * 1000:.0f}m, "
        f"repvgg_predicted_wait_seconds {found.predicted_wait_s * 1000:.0f}m, repvgg_queue_depth {found.queue_depth}",
    )
    deadline_ms = f"{deadline_s * 1000:.0f}"
    yield "settings", f"REPVGG_OBJECTIVE_MS={deadline_ms} REPVGG_TIMEOUT_MS={deadline_ms}"
