"""The outcomes of a request's images -> its answer.

1. 200 if at least one image has an answer; otherwise a problem document with the status of the first failure;
2. one bad image never fails the others: each has its predictions, or its own error.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from models.explanation.head import Cam as ComputedCam
from models.formats.sizes import stated_size
from service.api.problems import Fault, fault_of
from service.api.reading.payloads import Upload
from service.api.requests import Exchange, while_connected
from service.api.schemas import (
    Answer,
    Cam,
    Candidate,
    Choice,
    Embedding,
    FailedImage,
    ImageFault,
    LabelSet,
    Result,
    ScoredLabel,
    ServedModel,
)
from service.classify.classifier import Classifier
from service.classify.outcomes import LABELS_ONLY, Asked, Classified, Image, Outcome
from service.engines import selection
from service.machine.aside import aside_if_large
from service.observe.objective import PIXELS_PER_PROMISE

# In an answer.
BYTES_PER_PREDICTION = 64
BYTES_PER_NUMBER = 12
# Decimals of a grid's numbers: a map of a thousand cells keeps its sum to 1e-4.
DECIMALS = 7


async def classify_images(
    request: Request,
    classifier: Classifier,
    images: Sequence[Image],
    *,
    top_k: int,
    deadline: float,
    asked: Asked = LABELS_ONLY,
) -> list[Outcome]:
    """The outcome of each image. Call it after the body is read. Raises ClientDisconnect once the client has
    disconnected."""
    exchange = Exchange.of(request)
    exchange.images = len(images)
    exchange.promises = float(len(images))
    work = classifier.classify(images, top_k=top_k, deadline=deadline, trace=exchange.trace, asked=asked)
    outcomes: list[Outcome] = []
    try:
        outcomes = await while_connected(request, work)
    finally:
        failed = [outcome for outcome in outcomes if not isinstance(outcome, Classified)]
        exchange.failed_images.update(fault_of(outcome).code for outcome in failed)
        if failed or exchange.worked_s() > exchange.objective_s / 2:  # otherwise their sizes do not matter
            exchange.promises = promises_of(images)
    exchange.answered = exchange.clock()
    note_timings(exchange, outcomes)
    for follow in exchange.followers:
        follow(exchange.request_id, classifier, images, outcomes)
    return outcomes


def promises_of(images: Sequence[Image]) -> float:
    """Their total size, in images of PIXELS_PER_PROMISE."""
    pixels = (stated_size(image).pixels if isinstance(image, bytes) else 0 for image in images)
    return sum(max(1.0, count / PIXELS_PER_PROMISE) for count in pixels)


def note_timings(exchange: Exchange, outcomes: Sequence[Outcome]) -> None:
    """For several images, the maximum of each stage: the time of the slowest image."""
    timings = [outcome.timings for outcome in outcomes if isinstance(outcome, Classified)]
    if timings:
        exchange.stages["decode"] = max(timing.decode_s for timing in timings)
        exchange.stages["queue"] = max(timing.queue_s for timing in timings)
        exchange.stages["infer"] = max(timing.infer_s for timing in timings)
        exchange.batch_size = max(timing.batch_size for timing in timings)


async def answer(
    exchange: Exchange,
    classifier: Classifier,
    uploads: Sequence[Upload],
    outcomes: Sequence[Outcome],
    *,
    as_list: bool = False,
) -> Response:
    frame = Answer(model=served_model(classifier), results=[], request_id=exchange.request_id)
    return await answer_as(exchange, classifier, uploads, outcomes, frame, as_list=as_list)


async def answer_as(
    exchange: Exchange,
    classifier: Classifier,
    uploads: Sequence[Upload],
    outcomes: Sequence[Outcome],
    frame: BaseModel,
    *,
    as_list: bool = False,
) -> Response:
    """`frame`: the answer without results, which go into its first list; `as_list`: how embeddings are written. A
    problem document if no image has an answer."""
    faults = [fault_of(outcome) for outcome in outcomes if not isinstance(outcome, Classified)]
    if len(faults) == len(outcomes):
        return nothing_classified(exchange, uploads, faults)
    size = sum(size_of(outcome) for outcome in outcomes if isinstance(outcome, Classified))
    text = await aside_if_large(size, partial(_text, frame, uploads, outcomes, as_list))
    headers = cache_status(outcomes, keeps=classifier.keeps_answers)
    return Response(text, media_type="application/json", headers=headers)


def size_of(outcome: Classified) -> int:
    """The approximate size of its answer in bytes."""
    numbers = sum(cam.grid.size for cam in outcome.cams or ()) + (
        0 if outcome.embedding is None else outcome.embedding.size
    )
    labels = len(outcome.predictions) + len(outcome.label_set.labels if outcome.label_set else ())
    return labels * BYTES_PER_PREDICTION + numbers * BYTES_PER_NUMBER


def _text(frame: BaseModel, uploads: Sequence[Upload], outcomes: Sequence[Outcome], as_list: bool) -> str:
    """One result after the other: all of them at once can take a tenth of a second, in one call."""
    head, _, tail = frame.model_dump_json(exclude_none=True).partition("[]")
    results = [
        result_of(index, upload.filename, outcome, as_list=as_list).model_dump_json(exclude_none=True)
        for index, (upload, outcome) in enumerate(zip(uploads, outcomes, strict=True))
    ]
    return f"{head}[{','.join(results)}]{tail}"


def cache_status(outcomes: Sequence[Outcome], *, keeps: bool) -> dict[str, str]:
    """Cache-Status (RFC 9211) of the whole answer: that of the image that took the most work. No header if nothing is
    cached and nothing was shared."""
    sources = {outcome.source for outcome in outcomes if isinstance(outcome, Classified)}
    if "miss" in sources:
        return {"Cache-Status": "repvgg; fwd=miss"} if keeps else {}
    return {"Cache-Status": "repvgg; fwd=miss; collapsed" if "collapsed" in sources else "repvgg; hit"}


def nothing_classified(exchange: Exchange, uploads: Sequence[Upload], faults: Sequence[Fault]) -> Response:
    first = faults[0]
    detail = first.detail if len(faults) == 1 else f"none of the {len(faults)} images; the first: {first.detail}"
    errors = [
        FailedImage(index=index, filename=upload.filename, code=fault.code, detail=fault.detail)
        for index, (upload, fault) in enumerate(zip(uploads, faults, strict=True))
    ]
    return exchange.problem(Fault(first.code, detail, first.retry_after_s, index=0), errors=errors)


def result_of(index: int, filename: str | None, outcome: Outcome, *, as_list: bool = False) -> Result:
    if isinstance(outcome, Classified):
        labels = [ScoredLabel(**prediction._asdict()) for prediction in outcome.predictions]
        for label, cam in zip(labels, outcome.cams or (), strict=False):
            label.cam = _cam(cam)
        embedding = None if outcome.embedding is None else _embedding(outcome.embedding, outcome.normalized, as_list)
        return Result(
            index=index,
            filename=filename,
            predictions=labels,
            confident=outcome.confident,
            set=None if outcome.label_set is None else LabelSet(**outcome.label_set._asdict()),
            embedding=embedding,
        )
    fault = fault_of(outcome)
    return Result(index=index, filename=filename, error=ImageFault(code=fault.code, detail=fault.detail))


def _cam(cam: ComputedCam) -> Cam:
    return Cam(grid=cam.grid.round(DECIMALS).tolist(), bias=cam.bias, logit=cam.logit, box=list(cam.box))


def _embedding(values: NDArray[np.float32], normalized: bool, as_list: bool) -> Embedding:
    content: dict[str, Any] = (
        {"values": values.tolist()} if as_list else {"b64": base64.b64encode(values.astype("<f4").tobytes()).decode()}
    )
    return Embedding(**content, shape=list(values.shape), normalized=normalized)


def served_model(classifier: Classifier) -> ServedModel:
    manifest, engine = classifier.bundle.manifest, classifier.engine
    return ServedModel(name=manifest.name, version=manifest.version, engine=engine.name, precision=engine.precision)


def choice_of(choice: selection.Choice | None) -> Choice | None:
    """None for an engine that was passed in."""
    if choice is None:
        return None
    candidates = [
        Candidate(
            engine=one.engine,
            precision=one.precision,
            images_per_second=one.images_per_second,
            objection=str(one.objection) if one.objection else None,
        )
        for one in choice.candidates
    ]
    return Choice(reason=choice.reason, candidates=candidates)
