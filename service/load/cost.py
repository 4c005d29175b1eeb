"""The cost of an answer: CPU time as the server itself counts it, and money if a price is given.

1. whatever the server did during a load counts, refusals and health checks included;
2. if the two readings are from different processes, there is no figure, rather than a wrong one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.load.generator import ask_once
from service.load.wire import Address, Broken, PreparedRequest

MILLION = 1_000_000
HOUR_S = 3600.0
PATIENCE_S = 5.0
_SAMPLE = re.compile(r"^(process_cpu_seconds_total|process_start_time_seconds) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class CpuReading:
    """CPU seconds of the server's processes, without engines in processes of their own; `started_at`: seconds, when the
    newest of them began."""

    cpu_s: float
    started_at: float

    def until(self, later: CpuReading | None) -> float | None:
        """CPU seconds between the two. None if processes have come or gone, or a load balancer chose another server."""
        if later is None or later.started_at != self.started_at or later.cpu_s < self.cpu_s:
            return None
        return later.cpu_s - self.cpu_s


def read_cpu(address: Address) -> CpuReading | None:
    """From its metrics. None if it has none."""
    try:
        reply = ask_once(address, PreparedRequest(address, "/metrics", [], b"", method="GET"), PATIENCE_S)
        found = dict(_SAMPLE.findall(reply.body.decode("utf-8", "replace")))
        return CpuReading(float(found["process_cpu_seconds_total"]), float(found["process_start_time_seconds"]))
    except (Broken, KeyError, ValueError):
        return None


def core_hours_per_million(cpu_s_per_image: float) -> float:
    return cpu_s_per_image * MILLION / HOUR_S


def describe_cost(core_hours: float, price_per_core_hour: float | None) -> str:
    """`2.31 core hours per million images, 0.0970 at 0.042 per core hour`; the currency is the caller's."""
    text = f"{core_hours:.3g} core hours per million images"
    if price_per_core_hour is None:
        return text
    return f"{text}, {core_hours * price_per_core_hour:.3g} at {price_per_core_hour:g} per core hour"
