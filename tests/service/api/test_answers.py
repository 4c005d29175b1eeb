from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from models.errors import ImageError
from models.scores.topk import Prediction
from service.api.answers import answer, cache_status, note_timings
from service.api.reading.payloads import Upload
from service.api.requests import Exchange
from service.classify.deduplication import Source
from service.classify.outcomes import Classified, Outcome, Timings
from service.errors import EngineFailed, Overloaded

BEST = Prediction("cat", 3, 0.75)
CAT = Classified([BEST, Prediction("dog", 5, 0.25)], Timings(0.002, 0.001, 0.010, 4), "miss", BEST)
BAD = ImageError("undecodable_image", "not a readable image")
SERVED = SimpleNamespace(
    bundle=SimpleNamespace(manifest=SimpleNamespace(name="tiny", version="1")),
    engine=SimpleNamespace(name="fake", precision="fp32"),
    keeps_answers=False,
)


def exchange() -> Exchange:
    return Exchange("r1", "/classify", arrived=0.0, clock=lambda: 0.5)


def reply_to(*fates: Outcome) -> tuple[int, dict[str, Any], Any]:
    uploads = [Upload(f"{index}.jpg", b"") for index in range(len(fates))]
    response = asyncio.run(answer(exchange(), SERVED, uploads, fates))
    return response.status_code, json.loads(response.body), response.headers


def test_the_answer_is_the_promised_document() -> None:
    status, body, headers = reply_to(CAT, BAD)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body == {
        "model": {"name": "tiny", "version": "1", "engine": "fake", "precision": "fp32"},
        "results": [
            {
                "index": 0,
                "filename": "0.jpg",
                "predictions": [
                    {"label": "cat", "class_id": 3, "score": 0.75},
                    {"label": "dog", "class_id": 5, "score": 0.25},
                ],
            },
            {
                "index": 1,
                "filename": "1.jpg",
                "error": {"code": "undecodable_image", "detail": "not a readable image"},
            },
        ],
        "request_id": "r1",
    }


def test_an_image_without_a_name_has_none() -> None:
    response = asyncio.run(answer(exchange(), SERVED, [Upload(None, b"")], [CAT]))
    assert "filename" not in json.loads(response.body)["results"][0]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_200_as_long_as_one_image_has_an_answer(position: int) -> None:
    fates: list[Outcome] = [BAD, Overloaded("full", 3.0), EngineFailed("secret")]
    fates[position] = CAT
    status, body, headers = reply_to(*fates)
    assert status == 200
    assert ["predictions" in result for result in body["results"]] == [index == position for index in range(3)]
    assert "secret" not in json.dumps(body)
    assert "retry-after" not in headers


def test_when_none_has_an_answer_the_first_failure_decides_the_status() -> None:
    status, body, headers = reply_to(Overloaded("full", 3.0), BAD)
    assert (status, body["code"], body["index"]) == (503, "overloaded", 0)
    assert (headers["retry-after"], body["retry_after_ms"]) == ("3", 3000)
    assert body["detail"] == "none of the 2 images; the first: full"
    assert body["errors"] == [
        {"index": 0, "filename": "0.jpg", "code": "overloaded", "detail": "full"},
        {"index": 1, "filename": "1.jpg", "code": "undecodable_image", "detail": "not a readable image"},
    ]
    assert reply_to(BAD, Overloaded("full", 3.0))[0] == 422


def test_a_single_failure_is_told_without_ceremony() -> None:
    status, body, _ = reply_to(BAD)
    assert (status, body["detail"], len(body["errors"])) == (422, "not a readable image", 1)


def test_of_several_images_each_stage_shows_its_maximum() -> None:
    noted = exchange()
    slow_decode = Classified([], Timings(0.5, 0.0005, 0.001, 1), "miss", BEST)
    note_timings(noted, [CAT, BAD, slow_decode])
    assert (
        noted.server_timing()
        == 'decode;dur=500.000, queue;dur=1.000, infer;dur=10.000;desc="batch=4", total;dur=500.000'
    )


def test_without_any_answer_there_are_no_stages_to_tell() -> None:
    noted = exchange()
    note_timings(noted, [BAD])
    assert noted.server_timing() == "total;dur=500.000"


@pytest.mark.parametrize(
    ("sources", "keeps", "status"),
    [
        (["miss"], False, None),
        (["miss", "collapsed"], False, None),
        (["miss", "hit"], True, "repvgg; fwd=miss"),
        (["collapsed"], False, "repvgg; fwd=miss; collapsed"),
        (["collapsed", "hit"], True, "repvgg; fwd=miss; collapsed"),
        (["hit", "hit"], True, "repvgg; hit"),
    ],
)
def test_the_cache_status_tells_what_most_had_to_be_done(sources: list[Source], keeps: bool, status: str) -> None:
    fates = [*(replace(CAT, source=source) for source in sources), BAD]
    assert cache_status(fates, keeps=keeps).get("Cache-Status") == status
