"""The JSON that goes in and out, as models: the truth for /openapi.json as well."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.settings import Settings

REFERENCE = "#/components/schemas/{model}"  # where /openapi.json keeps a model; also pydantic's `ref_template`
BINARY = {"type": "string", "format": "binary"}
# A PNG of one pixel: the examples are requests that work.
PIXEL_B64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def reference(model: type[BaseModel]) -> dict[str, str]:
    """The OpenAPI schema that refers to this model."""
    return {"$ref": REFERENCE.format(model=model.__name__)}


class EncodedImage(BaseModel):
    """`b64`: an encoded image (JPEG, PNG, ...) in base64, or a `data:` URI of one."""

    model_config = ConfigDict(extra="forbid")

    b64: str


class ClassifyRequest(BaseModel):
    """`priors`: label -> its share of your images, if known; the rest is shared equally by the other labels."""

    model_config = ConfigDict(extra="forbid")

    images: list[EncodedImage]
    priors: dict[str, float] | None = None


class ServedModel(BaseModel):
    name: str
    version: str
    engine: str
    precision: str


class Cam(BaseModel):
    """`grid`, rows from the top: the contribution of each cell of the last feature map to the `logit`, which is the sum
    of the grid plus `bias`. `box`: left, top, right and bottom of what the network saw, in pixels of the upright
    photo."""

    grid: list[list[float]]
    bias: float
    logit: float
    box: Annotated[list[float], Field(min_length=4, max_length=4)]


class ScoredLabel(BaseModel):
    """`score`: softmax probability over all classes, or over those of `labels`; of a multi-label bundle, the
    probability of this label alone, and `applies`: whether it reaches the label's threshold. `cam`: with
    `explain=cam`."""

    label: str
    class_id: int
    score: Annotated[float, Field(ge=0.0, le=1.0)]
    applies: bool | None = None
    cam: Cam | None = None


class Embedding(BaseModel):
    """The mean of the last feature map over its cells, as little-endian bytes in `b64` or as `values`; `normalized`: of
    length 1."""

    b64: str | None = None
    values: list[float] | None = None
    dtype: Literal["float32"] = "float32"
    shape: list[int]
    normalized: bool


class LabelSet(BaseModel):
    """`labels`, best first, that contain the true one with a probability of at least `coverage`, for images like those
    that the bundle was fitted on."""

    coverage: float
    labels: list[str]


class ImageFault(BaseModel):
    code: str
    detail: str


class Result(BaseModel):
    """The outcome of one image: either `predictions` by falling score, or its own `error`; `set` and `embedding` if
    requested. `confident`, for the best label: only if the bundle has a threshold."""

    index: int
    filename: str | None = None
    predictions: list[ScoredLabel] | None = None
    confident: bool | None = None
    set: LabelSet | None = None
    embedding: Embedding | None = None
    error: ImageFault | None = None


class Answer(BaseModel):
    """`results[i]` belongs to the i-th image of the request."""

    model: ServedModel
    results: list[Result]
    request_id: str


class Feedback(BaseModel):
    """`label`: the true one of the image at `index` in the request's answer; null for none of the model's labels."""

    model_config = ConfigDict(extra="forbid")

    request_id: Annotated[str, Field(min_length=1, max_length=100)]
    index: Annotated[int, Field(ge=0, strict=True)] = 0
    label: Annotated[str, Field(max_length=1000)] | None


class FeedbackAnswer(BaseModel):
    """`predicted`: the label in the answer, `confident` and `in_set` as in the answer; `counted`: false if the same
    feedback came before."""

    result: Literal["right", "wrong", "foreign"]
    predicted: str
    confident: bool | None = None
    in_set: bool | None = None
    counted: bool


class FailedImage(BaseModel):
    index: int
    filename: str | None = None
    code: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem document. `code` is stable and meant for programs, `detail` for people."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    index: int | None = None
    errors: list[FailedImage] | None = None
    retry_after_ms: int | None = None
    checks: dict[str, str] | None = None
    error: str | None = Field(None, description="the detail again, for the Open Inference Protocol")


class Speed(BaseModel):
    """For the engine alone, in full batches: a moving average since the start. Null until there is a measurement."""

    seconds_per_image: float | None
    images_per_second: float | None

    @classmethod
    def of(cls, seconds_per_image: float) -> Speed:
        if seconds_per_image <= 0:
            return cls(seconds_per_image=None, images_per_second=None)
        return cls(seconds_per_image=seconds_per_image, images_per_second=1 / seconds_per_image)


class Candidate(BaseModel):
    """`images_per_second`: null if it was not measured; `objection`: null, or why it was not possible or not tried."""

    engine: str
    precision: str
    images_per_second: float | None
    objection: str | None


class Choice(BaseModel):
    """Why this engine and precision serve, and the alternatives that were considered."""

    reason: str
    candidates: list[Candidate]


class Limits(BaseModel):
    """The limits of a request to /classify; beyond them, the response is 413, or 422 for other `formats`.
    `max_image_pixels`: width x height. `timeout_ms`: the longest that `timeout_ms` may be."""

    formats: list[str]
    max_images_per_request: int
    max_body_bytes: int
    max_image_pixels: int
    timeout_ms: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        from models.preprocess import FORMATS  # not for the command line, which imports these schemas

        return cls(
            formats=list(FORMATS),
            max_images_per_request=settings.max_images_per_request,
            max_body_bytes=settings.max_body_bytes,
            max_image_pixels=settings.max_image_pixels,
            timeout_ms=settings.timeout_ms,
        )


class ModelDescription(ServedModel):
    """`labels[i]` is the label of class_id i. `manifest`: the bundle's manifest.json. `device`: what the engine runs
    on, as its runtime names it. `pixels`: exact or fast. `explanations`: whether `explain` and `embedding` work.
    `workers`: processes that serve it. `feedback`: whether POST /feedback works. `keeps_images`: which images this
    server stores for labelling, `not confident` for instance; null if none."""

    labels: list[str]
    manifest: dict[str, Any]
    speed: Speed
    device: str
    pixels: str
    explanations: bool
    choice: Choice | None
    workers: int
    limits: Limits
    feedback: bool
    keeps_images: str | None


class Health(BaseModel):
    status: str
    checks: dict[str, str] | None = None


class V2Health(BaseModel):
    """Of the Open Inference Protocol: `live` or `ready`."""

    live: bool | None = None
    ready: bool | None = None
    checks: dict[str, str] | None = None


class ModelReady(BaseModel):
    name: str
    ready: bool
    checks: dict[str, str] | None = None


class VertexRequest(BaseModel):
    """As Google Vertex AI sends it. `parameters`: as in the query of /classify, and `priors`."""

    instances: list[EncodedImage]
    parameters: dict[str, Any] = {}


class VertexAnswer(BaseModel):
    predictions: list[Result]


class ServerMetadata(BaseModel):
    """This and the following: of the Open Inference Protocol (KServe v2); its extensions add only `parameters`."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """`shape`: -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A request has one of `inputs`."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


# A longer one is not one of ours, and is not repeated in an error.
Name = Annotated[str, Field(max_length=100)]


class InputTensor(BaseModel):
    """`data`: flat or nested; absent if `parameters.binary_data_size` bytes follow the JSON."""

    name: Name
    datatype: Name
    shape: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(max_length=8)]
    parameters: dict[str, Any] = {}
    data: Any = None


class RequestedOutput(BaseModel):
    name: Name
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """`parameters`: `top_k`, `timeout` in microseconds, `binary_data_output`; all outputs when none is named."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[InputTensor], Field(max_length=8)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=16)] = []


class OutputTensor(BaseModel):
    """`data` is flat, row-major."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]
