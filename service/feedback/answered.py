"""The recent answers of this process, until their true labels are reported.

1. at most `most` images are remembered, in at most MOST_BYTES; the oldest answers are forgotten first;
2. feedback on an image counts once: the same label again changes nothing, another one is refused;
3. it counts for the bundle that answered, even after a reload;
4. the answer is judged as it was given: with the labels and priors that its caller asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from models.store import Bundle
from service.classify.classifier import Classifier
from service.classify.outcomes import Classified, Image, LabelSet, Outcome
from service.errors import FeedbackGiven, FeedbackRejected, UnknownRequest
from service.observe.feedback import FeedbackMetrics, Result
from service.settings import MEBIBYTE

MOST_BYTES = 64 * MEBIBYTE
# Measured with tracemalloc; labels are those of the bundle, so that a set takes a pointer for each.
ANSWER_BYTES, IMAGE_BYTES, LABEL_BYTES = 450, 350, 8


@dataclass(slots=True)
class AnsweredImage:
    """`best`: the label in the answer; `truth`: the label of the feedback, None for none of the classes."""

    best: str
    confident: bool | None
    label_set: LabelSet | None
    is_judged: bool = False
    truth: str | None = None

    @property
    def bytes(self) -> int:
        return IMAGE_BYTES + (LABEL_BYTES * len(self.label_set.labels) if self.label_set else 0)


@dataclass(slots=True)
class Answer:
    """`images`: None for each one without an answer."""

    bundle: Bundle
    images: list[AnsweredImage | None]
    bytes: int


@dataclass(frozen=True)
class Judgement:
    """`in_set`: None if no coverage was requested; `counted`: false if the same feedback came before."""

    result: Result
    predicted: str
    confident: bool | None
    in_set: bool | None
    counted: bool


class Answered:
    """`most`: images; 0 turns it off."""

    def __init__(self, most: int, metrics: FeedbackMetrics, max_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._bundle: Bundle | None = None
        self.images = 0
        self.bytes = 0

    def note(self, request_id: str, bundle: Bundle, outcomes: Sequence[Outcome]) -> None:
        """Remember an answer that is about to be given; an earlier one with this id is forgotten."""
        if self._bundle is not bundle:
            self._bundle = bundle
            self._metrics.expect(bundle.manifest, bundle.labels)
        images = [_image(outcome) for outcome in outcomes]
        if not any(images):
            return
        self._forget(request_id)
        size = ANSWER_BYTES + len(request_id) + sum(image.bytes if image else LABEL_BYTES for image in images)
        self._answers[request_id] = Answer(bundle, images, size)
        self.images += len(images)
        self.bytes += size
        while self.images > self._most or self.bytes > self._max_bytes:
            self._forget(next(iter(self._answers)))

    def follow(self, request_id: str, classifier: Classifier, _: Sequence[Image], outcomes: Sequence[Outcome]) -> None:
        """A `Follower` of the API."""
        self.note(request_id, classifier.bundle, outcomes)

    def _forget(self, request_id: str) -> None:
        if (answer := self._answers.pop(request_id, None)) is not None:
            self.images -= len(answer.images)
            self.bytes -= answer.bytes

    def judge(self, request_id: str, index: int, label: str | None) -> Judgement:
        """`label`: the true one, None for none of the classes. Raises UnknownRequest, FeedbackRejected for an unknown
        image or label, and FeedbackGiven for a second, different label."""
        answer = self._answers.get(request_id)
        if answer is None:
            raise UnknownRequest(
                f"no answer with the request_id {request_id} is remembered: a worker remembers the last {self._most} "
                "images, until it ends"
            )
        image = _image_of(answer, index)
        _check_label(label, answer.bundle)
        counted = not image.is_judged
        if image.is_judged and image.truth != label:
            raise FeedbackGiven(f"image {index} already has a label: {_shown(image.truth)}")
        judgement = _judge(image, label, counted=counted)
        if counted:
            image.is_judged, image.truth = True, label
            self._count(answer.bundle, label, image, judgement)
        return judgement

    def _count(self, bundle: Bundle, label: str | None, image: AnsweredImage, judgement: Judgement) -> None:
        self._metrics.count(bundle.manifest, label, judgement.result, judgement.confident)
        if image.label_set is not None:
            held = bool(judgement.in_set)
            self._metrics.count_set(bundle.manifest, label, held=held, coverage=image.label_set.coverage)


def _image(outcome: Outcome) -> AnsweredImage | None:
    if not isinstance(outcome, Classified):
        return None
    return AnsweredImage(outcome.best.label, outcome.confident, outcome.label_set)


def _image_of(answer: Answer, index: int) -> AnsweredImage:
    if not 0 <= index < len(answer.images):
        raise FeedbackRejected(f"index={index}: the request had {len(answer.images)} images, counted from 0")
    image = answer.images[index]
    if image is None:
        raise FeedbackRejected(f"index={index}: this image got an error, not an answer")
    return image


def _check_label(label: str | None, bundle: Bundle) -> None:
    if label is not None and label not in bundle.labels:
        name = f"{bundle.manifest.name} {bundle.manifest.version}"
        raise FeedbackRejected(
            f"label: {name} has no {label[:100]!r}; GET /models lists its labels, and null stands for none of them"
        )


def _judge(image: AnsweredImage, label: str | None, *, counted: bool) -> Judgement:
    result: Result = "foreign" if label is None else "right" if label == image.best else "wrong"
    in_set = None if image.label_set is None else label in image.label_set.labels
    return Judgement(result, image.best, image.confident, in_set, counted)


def _shown(label: str | None) -> str:
    return "none of the classes" if label is None else label
