"""manifest.json of a model bundle: strict JSON in and out; a wrong value cannot be built.

1. an unknown schema version is rejected before anything else;
2. an unknown key, a wrong type or a value out of range names the key;
3. no file name may leave the bundle's folder;
4. what was written is read back equal;
5. it vouches for a precision only by its golden tolerance and its measured accuracy;
6. it vouches for fast pixels only by their measured effect on enough large photos.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from models.errors import BundleError
from models.fields import FileName, Grown, Moment, Positive, Sha256, Slug, Strict, Temperature, Unit

SCHEMA_VERSION: Literal[1] = 1
MAX_SIDE = 4096  # pixels, of the resized short side: no published network comes near it
# Share of photos that keep their top-1 answer with fast pixels. For comparison: int8 keeps 0.986 on the shipped network
# and loses little top-1. If 150 photos all agree, at least 0.98 of all do, with 95 % certainty (0.98 ** 150 < 0.05).
MIN_AGREEMENT = 0.98
MIN_LARGE_PHOTOS = 150

Precision = Literal["fp32", "bf16", "fp16", "int8"]
Pixels = Literal["exact", "fast"]
Rounding = Literal["floor", "round"]
Icc = Literal["ignore", "srgb"]
HIGHEST = 10  # logits that are evidence of a confident answer by their rank too


class _Schema(BaseModel):
    schema_version: Any = None


def problems(error: ValidationError) -> str:
    """`key: what is wrong with it`, for each problem; without a key if it concerns the whole text."""
    named = ((".".join(str(part) for part in item["loc"]), item["msg"]) for item in error.errors())
    return "; ".join(f"{key}: {message}" if key else message for key, message in named)


class Network(Strict):
    """`parameters` counts the deploy form's weights and biases."""

    variant: str
    num_classes: Positive
    parameters: Positive


class Preprocess(Grown):
    """How pixels become the input tensor; `models.preprocess` is its only reader.

    The short side is resized to `resize_size` with Pillow's `interpolation` filter, the long side in proportion and
    rounded as `long_side_rounding` says, or with `squash` both sides; a centred square of `input_size` is cut with its
    offset rounded as `crop_offset_rounding` says; an embedded ICC profile is converted to sRGB or ignored, as `icc`
    says; then `(pixel / 255 - mean) / std`. `resize_to` is the size to resize to if `crop_pct` cannot express it.
    Bundles written before `icc` existed ignore profiles.
    """

    LATER = frozenset({"icc", "crop_pct", "resize_to"})

    input_size: Annotated[int, Field(gt=0, le=MAX_SIDE)]
    color: Literal["RGB"] = "RGB"
    resize: Literal["shortest_side", "squash"] = "shortest_side"
    resize_to: Annotated[int, Field(gt=0, le=MAX_SIDE)] | None = None
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    antialias: Literal[True] = True
    long_side_rounding: Rounding = "floor"
    crop_pct: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    crop_offset_rounding: Rounding = "floor"
    icc: Icc = "ignore"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["float32"] = "float32"

    @model_validator(mode="after")
    def _plausible(self) -> Preprocess:
        for name, values, low in (("mean", self.mean, 0.0), ("std", self.std, 1e-6)):
            if not all(low <= value <= 1.0 for value in values):
                raise ValueError(f"{name} is in 0..1, not 0..255: {values}")
        if (self.crop_pct is None) == (self.resize_to is None):
            raise ValueError("crop_pct or resize_to must be given, and not both")
        if self.crop_pct is not None and self.input_size / self.crop_pct > MAX_SIDE:
            raise ValueError(f"crop_pct {self.crop_pct} of input_size {self.input_size} needs over {MAX_SIDE} pixels")
        if self.resize_size < self.input_size:
            raise ValueError(f"resize_to {self.resize_to} is less than input_size {self.input_size}")
        return self

    @property
    def resize_size(self) -> int:
        """Length of the short side after the resize, pixels; if no size is given, floor(input_size / crop_pct), as in
        timm."""
        return self.resize_to or int(self.input_size / (self.crop_pct or 1.0))


class Labels(Grown):
    """`multi`: any number of labels may apply to an image, and scores are per label (a sigmoid), not shared among them
    (a softmax). `thresholds`: the score from which each label applies; only for multi-label bundles."""

    LATER = frozenset({"multi", "thresholds"})

    file: FileName
    sha256: Sha256
    multi: bool = False
    thresholds: list[Unit] | None = None

    @model_validator(mode="after")
    def _belongs(self) -> Labels:
        if self.thresholds is not None and not self.multi:
            raise ValueError("thresholds are for multi-label bundles: set multi, or leave them out")
        return self


class Features(Strict):
    """A second output of an artifact, its last feature map, float32 (N, C, h, w), and the matrix that follows it.

    `head`: an .npz file of `weight` float32 (K, C) and `bias` (K,), those of this artifact, dequantised if it is int8:
    logits = weight @ mean of the feature map over its cells + bias.
    """

    output: str
    head: FileName
    sha256: Sha256


class Artifact(Grown):
    """One exported form of the network. `batch` is `dynamic` or the batch sizes it was built for. `features`: if it can
    explain its answers.

    `lite-mindir` is a MINDIR that MindSpore Lite wrote itself, for any device or compiled for one. Only versions close
    to its writer's can read it; the same is true of MindSpore's own `mindir`.
    """

    LATER = frozenset({"features"})

    format: Literal[
        "onnx", "mindir", "lite-mindir", "lite-mindir-ascend310", "lite-mindir-ascend310p", "air", "openvino"
    ]
    precision: Precision
    file: FileName
    sha256: Sha256
    input: str
    output: str
    batch: Literal["dynamic"] | Annotated[list[Positive], Field(min_length=1)]
    features: Features | None = None


class Golden(Strict):
    """`tolerance`: largest |logit difference| that a serving engine of this precision may show."""

    file: FileName
    sha256: Sha256
    tolerance: dict[Precision, Annotated[float, Field(gt=0.0)]]


class FastPixels(Strict):
    """What fast pixels change, in fp32, on `images` photos large enough to be affected: the fraction that keeps its
    top-1 answer, and top-1 with exact and with fast pixels."""

    images: Positive
    agreement: Unit
    exact_top1: Unit
    fast_top1: Unit

    def __str__(self) -> str:
        return (
            f"{self.agreement:.2%} of {self.images} large photos keep their answer, "
            f"top-1 {self.fast_top1:.2%} instead of {self.exact_top1:.2%}"
        )

    def doubt(self, max_top1_drop: float) -> str | None:
        """Why they must not be served; None if they may be."""
        drop = round(self.exact_top1 - self.fast_top1, 9)  # rounded, to drop float noise
        if self.images < MIN_LARGE_PHOTOS:
            return f"fast pixels were measured on {self.images} large photos; at least {MIN_LARGE_PHOTOS} are needed"
        if self.agreement < MIN_AGREEMENT:
            return f"fast pixels keep {self.agreement:.2%} of the answers, but at least {MIN_AGREEMENT:.0%} is needed"
        if drop > max_top1_drop:
            return f"fast pixels lose {drop:.2%} of top-1; at most {max_top1_drop:.2%} is allowed"
        return None


class Accuracy(Strict):
    """`top1`: fractions of the images of `training.evaluated_on`, served in each precision. The others may be at most
    `max_top1_drop` below fp32, and fast pixels below exact ones."""

    top1: dict[Precision, Unit]
    max_top1_drop: Unit
    fast_pixels: FastPixels | None = None

    @model_validator(mode="after")
    def _comparable(self) -> Accuracy:
        if "fp32" not in self.top1:
            raise ValueError("top1 must name fp32, with which the others are compared")
        return self

    def drop(self, precision: Precision) -> float | None:
        """How far the top-1 is below that of fp32, rounded to drop float noise; None if it was not measured."""
        return round(self.top1["fp32"] - self.top1[precision], 9) if precision in self.top1 else None


class Training(Grown):
    """Where the weights are from; top-1 and top-5 are fractions on `evaluated_on`. `licence`: the terms under which the
    weights may be used. `average_precision`: of each label, if several may apply; top-1 and top-5 are then the share of
    images with a true label among the best 1 or 5."""

    LATER = frozenset({"licence", "average_precision"})

    dataset: str
    evaluated_on: str
    recipe: str
    epochs: Annotated[int, Field(ge=0)]
    top1: Unit | None = None
    top5: Unit | None = None
    framework: str
    git_commit: str
    licence: str | None = None
    average_precision: dict[str, Unit] | None = None


class Published(Strict):
    """What a source states about its weights; none of it was measured here. `stated_by` says where."""

    top1: Unit
    top5: Unit | None = None
    dataset: str
    stated_by: str


class Source(Strict):
    """What a bundle was pulled from: `address` as requested, without secrets; `revision` is a commit or digest that
    names the content permanently. `licence` and `published` only if the source states them."""

    address: str
    revision: str
    licence: str | None = None
    published: Published | None = None


class Confidence(Strict):
    """What was fitted, at the temperature of the manifest, on `images` labelled images that the network was not trained
    on, served in `precision`, and on `foreign_images` of none of its classes.

    An answer is confident if its certainty reaches `threshold`; with `weights`, if the weighted sum of its evidence
    does (models.scores.confidence); with `embedding_weights` the pooled features are part of it. Fractions on the
    images of the fit: `accuracy` of confident answers, `answered` of the images confidently, `kept` of the right
    answers, `refused` of the foreign images. `quantiles`: of adaptive prediction sets, by coverage.
    """

    fitted_at: Moment
    images: Positive
    foreign_images: Annotated[int, Field(ge=0)] = 0
    precision: Precision
    threshold: float
    weights: list[float] | None = None
    embedding_weights: list[float] | None = None
    accuracy: Unit
    answered: Unit
    kept: Unit
    refused: Unit | None = None
    quantiles: Annotated[dict[Unit, Unit], Field(min_length=1)]

    def __str__(self) -> str:
        foreign = "" if self.refused is None else f", {self.refused:.2%} of {self.foreign_images} foreign ones refused"
        return (
            f"fitted on {self.images} images: {self.answered:.2%} answered confidently, {self.accuracy:.2%} of these "
            f"right, {self.kept:.2%} of the right answers kept{foreign}; sets of labels for a coverage of up to "
            f"{max(self.quantiles):g}"
        )

    @property
    def all_weights(self) -> list[float] | None:
        """Of the evidence with the embedding, if that has weights."""
        return None if self.weights is None else self.weights + (self.embedding_weights or [])


class Manifest(Grown):
    LATER = frozenset({"source", "confidence"})

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Slug
    version: Slug
    created_at: Moment
    network: Network
    preprocess: Preprocess
    labels: Labels
    artifacts: Annotated[list[Artifact], Field(min_length=1)]
    golden: Golden
    training: Training
    accuracy: Accuracy | None = None
    temperature: Temperature = 1.0
    source: Source | None = None
    confidence: Confidence | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        kinds = [(artifact.format, artifact.precision) for artifact in self.artifacts]
        if len(set(kinds)) != len(kinds):
            raise ValueError("artifacts: two of the same format and precision; keep one")
        weights, classes = self.confidence.weights if self.confidence else None, self.network.num_classes
        if weights is not None and len(weights) != (wanted := 1 + classes + min(classes, HIGHEST)):
            raise ValueError(f"confidence.weights: {wanted} are needed for {classes} classes, not {len(weights)}")
        if weights is None and self.confidence and self.confidence.embedding_weights is not None:
            raise ValueError("confidence.embedding_weights: they only come with weights")
        if self.labels.thresholds is not None and len(self.labels.thresholds) != self.network.num_classes:
            raise ValueError(f"labels.thresholds: {self.network.num_classes} classes need as many thresholds")
        if self.labels.multi and self.confidence is not None:
            raise ValueError("confidence: only for bundles with one label per image")
        return self

    @property
    def checksums(self) -> list[tuple[str, str]]:
        """(file, sha256) of each file named here; golden.json names the others."""
        features = [artifact.features for artifact in self.artifacts if artifact.features]
        entries: list[Labels | Golden | Artifact] = [self.labels, self.golden, *self.artifacts]
        return [
            *((entry.file, entry.sha256) for entry in entries),
            *((entry.head, entry.sha256) for entry in features),
        ]

    def doubt(self, precision: Precision) -> str | None:
        """Why this manifest does not vouch for a precision; None if it does.

        It vouches for a precision with a golden tolerance and no measured loss of accuracy over its limit; for int8,
        where no tolerance of logits is enough, the loss must have been measured.
        """
        if precision not in self.golden.tolerance:
            return f"the manifest gives no golden tolerance for {precision}"
        drop = self.accuracy.drop(precision) if self.accuracy else None
        if drop is None:
            # If all artifacts are int8, its own logits are the golden ones.
            unmeasured = precision == "int8" and any(artifact.precision != "int8" for artifact in self.artifacts)
            return "the manifest gives no top-1 of int8" if unmeasured else None
        if self.accuracy and drop > self.accuracy.max_top1_drop:
            return f"{precision} loses {drop:.2%} of top-1, but the manifest allows {self.accuracy.max_top1_drop:.2%}"
        return None

    def doubt_of_fast_pixels(self) -> str | None:
        """Why this manifest does not vouch for them; None if it does."""
        if self.accuracy is None or self.accuracy.fast_pixels is None:
            return "the manifest gives no accuracy of fast pixels"
        return self.accuracy.fast_pixels.doubt(self.accuracy.max_top1_drop)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Parse manifest.json; raises BundleError that names the key and what is wrong with it."""
        try:
            version = _Schema.model_validate_json(text).schema_version
            if type(version) is int and version == SCHEMA_VERSION:
                return cls.model_validate_json(text)
        except ValidationError as error:
            raise BundleError(f"manifest.json is not valid: {problems(error)}") from error
        raise BundleError(
            f"manifest.json has schema_version {version!r}, but this program reads {SCHEMA_VERSION}: "
            "use the release that wrote the bundle, or export the bundle again"
        )

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"
