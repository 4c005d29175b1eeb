"""Corrupt images, sent to the real server: each affects only its own result.

FUZZ_IMAGES=100000 makes a long run. The seed is that number, so that failures are reproducible.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.mutants import PICTURES, mutants

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Server

# As in production, where models.preprocess silences Pillow; pytest would turn its warnings into errors.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:PIL"), pytest.mark.timeout(0)]

IMAGES = int(os.environ.get("FUZZ_IMAGES", "2000"))
TOGETHER = 20
# Low, so that a corrupt size does not cost a second of decoding; larger images are still rejected by their header.
MAX_PIXELS = 1_000_000
# Each decoder thread may hold an image of 1 x 30 000 pixels, enlarged to the network's input: at most 200 MB.
MAX_GROWTH_MB = 200 * len(os.sched_getaffinity(0))


def resident_mb(process_id: int) -> float:
    """The peak memory of the process so far."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def classify(client: httpx.Client, images: list[bytes]) -> list[dict[str, Any]]:
    reply = client.post("/classify?top_k=10", files=[("image", (str(n), image)) for n, image in enumerate(images)])
    assert reply.status_code == 200, (reply.text, [image.hex() for image in images])
    results: list[dict[str, Any]] = reply.json()["results"]
    assert len(results) == len(images)
    return results


def scores(result: dict[str, Any]) -> dict[str, float]:
    """Scores by label; the last digits may differ between batches."""
    return {prediction["label"]: prediction["score"] for prediction in result["predictions"]}


def test_corrupt_images_never_fail_a_request_affect_a_neighbour_or_fill_memory(
    start: Callable[..., Server],
) -> None:
    server = start("--max-image-pixels", MAX_PIXELS).wait_until_serving()
    spoilt, codes = mutants(IMAGES, seed=IMAGES), set()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        good = list(PICTURES.values())
        right = [scores(result) for image in good for result in classify(client, [image])]
        before_mb = resident_mb(server.process.pid)
        for number in range(IMAGES // TOGETHER):
            mine = number % len(good)
            neighbour, *others = classify(client, [good[mine], *islice(spoilt, TOGETHER)])
            assert scores(neighbour) == pytest.approx(right[mine], abs=1e-5)
            codes |= {other["error"]["code"] for other in others if "error" in other}
        assert codes == {"undecodable_image", "too_many_pixels"}
        assert resident_mb(server.process.pid) < before_mb + MAX_GROWTH_MB
        assert client.get("/livez").status_code == 200
