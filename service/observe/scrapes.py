"""What a scraper gets: the metrics as text, in the format that it asks for.

1. the text is built in a thread, and only once for simultaneous scrapes;
2. a scrape is fresh unless scrapes have taken over SHARE of the time recently: then it is up to MOST_AGE_S old;
3. a format that cannot be understood is answered in the oldest one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

# A scrape takes 6 to 22 ms with up to 1000 labels, and anybody may ask for one.
SHARE = 0.05
BURST_S = 0.25
MOST_AGE_S = 1.0
# Characters of the header that are read; Prometheus sends 250.
MOST_ACCEPT = 1000

Encode = Callable[[Collector], bytes]


class Scrape(NamedTuple):
    text: bytes
    media_type: str
    at: float


class Scrapes:
    """`collector`: the metrics of all processes, now."""

    def __init__(
        self, collector: Callable[[], Awaitable[Collector]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._collector = collector
        self._clock = clock
        self._kept: dict[str, Scrape] = {}  # by media type
        self._building: dict[str, asyncio.Task[Scrape]] = {}
        self._spent_s = 0.0
        self._spent_at = clock()

    async def get(self, accept: str) -> Scrape:
        """`accept`: the request's header. Raises what `collector` raises."""
        encode, media_type = _encoder(accept)
        kept = self._kept.get(media_type)
        if kept and self._is_over_budget() and self._clock() - kept.at < MOST_AGE_S:
            return kept
        if media_type not in self._building:
            self._building[media_type] = task = asyncio.create_task(self._build(encode, media_type))
            task.add_done_callback(lambda _: self._building.pop(media_type))
        return await asyncio.shield(self._building[media_type])  # a scraper that leaves does not end it for the others

    async def _build(self, encode: Encode, media_type: str) -> Scrape:
        collector, started = await self._collector(), self._clock()
        text = await asyncio.to_thread(encode, collector)
        now = self._clock()
        self._spent_s += now - started
        self._kept[media_type] = scrape = Scrape(text, media_type, now)
        return scrape

    def _is_over_budget(self) -> bool:
        now = self._clock()
        self._spent_s = max(0.0, self._spent_s - SHARE * (now - self._spent_at))
        self._spent_at = now
        return self._spent_s > BURST_S


def _encoder(accept: str) -> tuple[Encode, str]:
    """One of two formats, and no other version or escaping: each would be another text to build."""
    try:
        _, media_type = choose_encoder(accept[:MOST_ACCEPT])
    except (ValueError, TypeError):  # a version that is no number
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    if media_type.startswith("application/openmetrics-text"):
        return openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
