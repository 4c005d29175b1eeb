"""One load test from start to finish, as `repvgg bench` runs it, and its progress in words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from service.errors import UsageError
from service.load.cost import read_cpu
from service.load.figures import Figures, summarise
from service.load.generator import Plan, Run, run_load
from service.load.target import check_server, prepare, read_images, read_url
from service.settings import Settings

# A request without an answer this long after its deadline counts as failed; a refusal may still be on its way.
GRACE_S = 1.0
# A flood does not hang up, and late answers count as late.
PATIENCE_OF_RUDE_S = 10.0
RECENT_S = 1.0


def plan_load(
    settings: Settings,
    *,
    seconds: float,
    rate: float | None,
    clients: int | None,
    rude: bool = False,
    polite: int = 0,
) -> Plan:
    """`seconds` includes the warm-up. Without a rate it is a closed loop with one client by default.

    Raises UsageError.
    """
    if rate is not None and (rude or polite):
        raise UsageError("--rude and --polite are for a closed loop: give --concurrency, not --rate")
    if polite > (clients or 1):
        raise UsageError(f"--polite {polite} is more than --concurrency {clients or 1}")
    grace_s = PATIENCE_OF_RUDE_S if rude else GRACE_S
    return Plan(seconds, settings.timeout_ms / 1000 + grace_s, rate, clients or 1, rude, polite)


def measure(
    url: str,
    paths: Sequence[Path],
    settings: Settings,
    plan: Plan,
    warm_up_s: float,
    tick: Callable[[Run, float], None],
) -> Figures:
    """Check everything, then put the load on the service; blocks. `tick` as in run_load.

    Raises UsageError, AddressUnavailable and ConfigError, all of them before the load begins.
    """
    address, target = read_url(url, settings.timeout_ms)
    images = read_images(paths, settings.max_image_pixels)
    requests = prepare(address, target, list(images.values()), settings)
    model = check_server(url, address, requests[0], plan.give_up_after_s)
    before = read_cpu(address)
    found = run_load(address, requests, plan, tick)
    return summarise(
        found,
        plan,
        url=url,
        model=model,
        deadline_ms=settings.timeout_ms,
        images=len(images),
        warm_up_s=warm_up_s,
        server_cpu_s=before.until(read_cpu(address)) if before else None,
    )


def describe_progress(run: Run, elapsed_s: float) -> str:
    """The responses of the last second."""
    recent = list(itertools.takewhile(lambda sample: sample.ended_s > elapsed_s - RECENT_S, reversed(run.samples)))
    latencies_s = [sample.latency_s for sample in recent if sample.status == 200]
    p50 = f"p50 {median(latencies_s) * 1000:.1f} ms, " if latencies_s else ""
    return f"{len(latencies_s)} images/s, {p50}{len(recent) - len(latencies_s)} refused or failed"
