"""The Open Inference Protocol (KServe v2, as Triton speaks it over HTTP), with binary tensors.

1. the real `tritonclient` works unchanged: health, metadata, configuration, inference, errors;
2. a request has one input: `image`, encoded images, or `pixels`, preprocessed tensors;
3. the protocol has no errors for single images: the whole request fails with the first failure, which names its index;
4. JSON is parsed up to MAX_JSON_BYTES and MAX_JSON_VALUES; larger inputs must be binary, which costs next to nothing.

Sources: open_inference_rest.yaml of the protocol's repository; "Binary Tensor Data Extension", "Classification
Extension" and "Model Configuration Extension" of Triton's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from models.scores.topk import Prediction
from service.api.answers import cache_status, classify_images, size_of
from service.api.health import Probes
from service.api.lifecycle import Lifecycle
from service.api.openapi import (
    INFER,
    INFER_BODY,
    MODEL_CONFIG,
    MODEL_METADATA,
    MODEL_READY,
    SERVER_METADATA,
    operation_id,
    path_parameters,
)
from service.api.problems import RequestError, fault_of
from service.api.protocols.compression import unpack
from service.api.protocols.tensors import (
    CAM_OUTPUTS,
    CONFIDENT,
    CONFIG_TYPES,
    EMBEDDING,
    OUTPUTS,
    SET,
    TensorType,
    inputs_of,
    malformed,
    output_tensor,
    outputs_of,
    read_images,
    refuse_shared_memory,
)
from service.api.reading.asked import read_asked_in_json
from service.api.reading.parameters import MOST_SHOWN, as_texts, check_names, read_top_k, refuse_query
from service.api.reading.payloads import explain, read_body, refuse_escapes
from service.api.reading.transfer import json_as_utf8
from service.api.requests import Exchange
from service.api.schemas import (
    InferAnswer,
    InferRequest,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    TensorMetadata,
)
from service.classify.classifier import Classifier
from service.classify.outcomes import Classified, Image
from service.machine.aside import aside, aside_if_large
from service.observe.metrics import program_version
from service.settings import MEBIBYTE, Settings

JSON_LENGTH = "Inference-Header-Content-Length"
# An image of 224 x 224 fits as JSON, and so do 64 of 32 x 32. Parsing that much holds the interpreter for about 10 ms.
MAX_JSON_BYTES = 4 * MEBIBYTE
MAX_JSON_VALUES = 200_000
MAX_JSON_STRUCTURES = 10_000
MODEL = "/v2/models/{name}"
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration"]
MICROSECONDS = 1_000_000
# What the `parameters` of a request may have.
PARAMETERS = ("top_k", "timeout", "binary_data_output", "labels", "priors", "normalize", "coverage")

_LENGTH = re.compile(r"[0-9]{1,18}")
_FORM = '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["<base64>"]}]}'


@dataclass(frozen=True)
class Output:
    """A requested output: `count` values per image, or as many texts `score:class_id:label`."""

    name: str
    count: int
    binary: bool
    classification: bool

    @property
    def datatype(self) -> str:
        return "BYTES" if self.classification else outputs_of(explains=True, doubts=True)[self.name].datatype

    def values(self, row: Classified) -> Any:
        """Of one image."""
        if self.name == EMBEDDING:
            return row.embedding
        if self.name == CONFIDENT:
            return row.confident
        if self.name == SET:
            return row.label_set.labels if row.label_set else []
        if self.name not in CAM_OUTPUTS:
            return [self._value(prediction) for prediction in row.predictions[: self.count]]
        assert row.cams is not None
        if self.name == "box":
            return row.cams[0].box
        return [getattr(cam, "grid" if self.name == "cam" else self.name) for cam in row.cams[: self.count]]

    def _value(self, prediction: Prediction) -> Any:
        if self.classification:
            return f"{prediction.score:f}:{prediction.class_id}:{prediction.label}"
        return getattr(prediction, self.name)


class InferenceV2:
    def __init__(self, lifecycle: Lifecycle, settings: Settings, probes: Probes) -> None:
        self._lifecycle = lifecycle
        self._settings = settings
        self._probes = probes

    def add_to(self, router: APIRouter) -> None:
        for path in ("/v2", "/v2/"):  # the protocol's text has one, its OpenAPI document the other
            router.add_api_route(path, self.server, methods=["GET"], include_in_schema=path == "/v2", **SERVER_METADATA)
        for model in (MODEL, MODEL + "/versions/{version}"):
            self._add(router, "GET", model, self.model, MODEL_METADATA)
            self._add(router, "GET", f"{model}/ready", self.ready, MODEL_READY)
            self._add(router, "GET", f"{model}/config", self.config, MODEL_CONFIG)
            self._add(router, "POST", f"{model}/infer", self.infer, INFER, INFER_BODY)

    def _add(
        self,
        router: APIRouter,
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        description: Mapping[str, Any],
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            operation_id=operation_id(path),
            openapi_extra={"parameters": path_parameters(path), **(extra or {})},
            **description,
        )

    async def server(self) -> ServerMetadata:
        """The server and the protocol extensions that it supports."""
        return ServerMetadata(name="repvgg", version=program_version(), extensions=EXTENSIONS)

    async def model(self, request: Request) -> ModelMetadata:
        """The inputs of the served model, of which a request has one, and its outputs."""
        classifier = self._served(request)
        manifest = classifier.bundle.manifest
        return ModelMetadata(
            name=manifest.name,
            versions=[manifest.version],
            platform=classifier.engine.name,
            inputs=_metadata(inputs_of(manifest.preprocess.input_size)),
            outputs=_metadata(known_outputs(classifier)),
        )

    async def ready(self, request: Request) -> Response:
        """Does this model accept inference requests?"""
        name = self._served(request).bundle.manifest.name
        return await self._probes.readiness(request, {"name": name, "ready": True})

    async def config(self, request: Request) -> Response:
        """The model as a Triton model configuration. `max_batch_size` is 0 because N is part of the shapes."""
        classifier = self._served(request)
        manifest = classifier.bundle.manifest
        inputs = _config(inputs_of(manifest.preprocess.input_size))
        config = {
            "name": manifest.name,
            "platform": classifier.engine.name,
            "max_batch_size": 0,
            "input": [{**tensor, "optional": True} for tensor in inputs],
            "output": _config(known_outputs(classifier)),
        }
        return JSONResponse(config)

    async def infer(self, request: Request) -> Response:
        """The best labels of one or more images."""
        exchange = Exchange.of(request)
        exchange.expect_answer_within(self._settings.timeout_ms / 1000)
        classifier = self._served(request)
        classifier.admit(self._lifecycle.uploads.earliest_deadline(exchange))
        refuse_query(request, PARAMETERS)
        read = partial(self._read, classifier=classifier)
        classifier, asked, images = await self._lifecycle.uploads.read(request, read)
        check_names(asked.parameters, PARAMETERS)
        timeout_s = read_timeout_s(asked.parameters)
        exchange.expect_answer_within(timeout_s)
        deadline = self._lifecycle.uploads.deadline(exchange, timeout_s)
        outputs = wanted_outputs(asked, len(classifier.bundle.labels), known_outputs(classifier))
        most = max(output.count for output in outputs)
        more = read_asked_in_json(_asked_parameters(asked, outputs), classifier)
        outcomes = await classify_images(request, classifier, images, top_k=most, deadline=deadline, asked=more)
        rows: list[Classified] = []
        for index, outcome in enumerate(outcomes):
            if not isinstance(outcome, Classified):
                fault = fault_of(outcome)
                return exchange.problem(replace(fault, index=index, detail=f"image {index}: {fault.detail}"))
            rows.append(outcome)
        headers = cache_status(outcomes, keeps=classifier.keeps_answers)
        work = partial(answer, classifier, asked.id, outputs, rows, headers)
        return await aside_if_large(sum(map(size_of, rows)), work)

    def _served(self, request: Request) -> Classifier:
        """Raises NotReady, and RequestError `not_found` for another model or version."""
        return self._named(request, self._lifecycle.serving())

    def _named(self, request: Request, classifier: Classifier) -> Classifier:
        """The classifier, if it is the model in the path. Raises RequestError `not_found`."""
        manifest = classifier.bundle.manifest
        name, version = request.path_params["name"], request.path_params.get("version", manifest.version)
        if (name, version) != (manifest.name, manifest.version):
            served = f"{manifest.name} version {manifest.version}"
            raise RequestError("not_found", f"model {name} version {version} is not served here, but {served} is")
        return classifier

    async def _read(self, request: Request, classifier: Classifier) -> tuple[Classifier, InferRequest, list[Image]]:
        """-> the classifier that serves once the body is read, and what the body asks for."""
        limit = self._settings.max_body_bytes
        encoding = request.headers.get("content-encoding", "").strip().lower()
        body = await read_body(request, limit)
        classifier = self._named(request, self._lifecycle.still_open(classifier))
        work = partial(self._parse, body, encoding, request.headers.get(JSON_LENGTH), classifier)
        return classifier, *(await aside(work) if encoding else await aside_if_large(len(body), work))

    def _parse(
        self, body: bytes, encoding: str, json_length: str | None, classifier: Classifier
    ) -> tuple[InferRequest, list[Image]]:
        """In one step: unpacked bytes do not wait in memory."""
        asked, binary = parse(unpack(body, encoding, self._settings.max_body_bytes), json_length)
        images = read_images(
            asked.inputs,
            binary,
            input_size=classifier.bundle.manifest.preprocess.input_size,
            max_images=self._settings.max_images_per_request,
        )
        return asked, images


def parse(body: bytes, json_length: str | None) -> tuple[InferRequest, bytes]:
    """-> the request, and the bytes after its JSON. Raises RequestError."""
    if json_length is not None and not (_LENGTH.fullmatch(json_length) and int(json_length) <= len(body)):
        raise malformed(f"{JSON_LENGTH} is {json_length[:MOST_SHOWN]}, but the body has {len(body)} bytes")
    end = len(body) if json_length is None else int(json_length)
    if end > MAX_JSON_BYTES:
        raise RequestError(
            "body_too_large", f"{end} bytes of JSON are more than {MAX_JSON_BYTES}, the limit; send binary tensors"
        )
    text = json_as_utf8(body[:end])
    refuse_countless_values(text)
    try:
        return InferRequest.model_validate_json(text), body[end:]
    except ValidationError as error:
        raise malformed(explain(error, _FORM)) from error


def refuse_countless_values(json: bytes) -> None:
    """Before it is parsed. Raises RequestError."""
    structures = json.count(b"[") + json.count(b"{") + json.count(b":")
    if json.count(b",") > MAX_JSON_VALUES or structures > MAX_JSON_STRUCTURES:
        raise RequestError(
            "body_too_large",
            f"the JSON has over {MAX_JSON_VALUES} values or {MAX_JSON_STRUCTURES} lists and names, the limits; "
            "send binary tensors",
        )
    refuse_escapes(json)


def read_timeout_s(parameters: Mapping[str, Any]) -> float | None:
    """`timeout` in microseconds, as Triton has it, 0 for none. Raises RequestError `invalid_parameter`."""
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        shown = as_texts({"timeout": timeout})["timeout"]
        raise RequestError("invalid_parameter", f"timeout={shown} is not a whole number of microseconds, 0 or above")
    return timeout / MICROSECONDS if timeout else None


def _asked_parameters(asked: InferRequest, outputs: Sequence[Output]) -> dict[str, Any]:
    """As in the query of /classify."""
    names = {output.name for output in outputs}
    found: dict[str, Any] = {
        name: asked.parameters[name]
        for name in ("labels", "priors", "normalize", "coverage")
        if name in asked.parameters
    }
    if names & CAM_OUTPUTS.keys():
        found["explain"] = "cam"
    return found | ({"embedding": True} if EMBEDDING in names else {})


def known_outputs(classifier: Classifier) -> Mapping[str, TensorType]:
    doubts = classifier.bundle.manifest.confidence is not None
    return outputs_of(explains=classifier.head is not None, doubts=doubts)


def wanted_outputs(asked: InferRequest, classes: int, known: Mapping[str, TensorType]) -> list[Output]:
    """At least one. Raises RequestError for an unknown output, and `invalid_parameter`."""
    names = [output.name for output in asked.outputs]
    if not set(names) <= set(known) or len(set(names)) < len(names):
        raise malformed(f"the outputs are {', '.join(known)}, each at most once, not {names}")
    if SET in names and "coverage" not in asked.parameters:
        raise RequestError("invalid_parameter", "the output set needs the parameter coverage, such as 0.95")
    top_k = read_top_k(as_texts(asked.parameters), classes)
    binary = asked.parameters.get("binary_data_output") is True
    outputs = asked.outputs or [RequestedOutput(name=name) for name in OUTPUTS]
    return [_wanted(output, top_k, binary, classes) for output in outputs]


def _wanted(output: RequestedOutput, top_k: int, binary: bool, classes: int) -> Output:
    refuse_shared_memory(f"output {output.name}", output.parameters)
    count = output.parameters.get("classification")
    if count is not None:
        if output.name != "score":
            raise malformed(f"output {output.name}: classification is a parameter of the output score")
        top_k = read_top_k(as_texts({"top_k": count}), classes)
    binary = output.parameters.get("binary_data", binary) is True
    return Output(output.name, top_k, binary, count is not None)


def answer(
    classifier: Classifier,
    request_id: str | None,
    outputs: list[Output],
    rows: list[Classified],
    headers: Mapping[str, str],
) -> Response:
    """`rows`: the answer for each image, with at least as many predictions as any output has values."""
    tensors, binaries = [], []
    for output in outputs:
        values = [output.values(row) for row in rows]
        if output.name == SET:
            widest = max(map(len, values))
            values = [[*labels, *[""] * (widest - len(labels))] for labels in values]
        tensor, binary = output_tensor(output.name, output.datatype, values, binary=output.binary)
        tensors.append(tensor)
        binaries.append(binary)
    manifest = classifier.bundle.manifest
    body = InferAnswer(model_name=manifest.name, model_version=manifest.version, id=request_id, outputs=tensors)
    text = body.model_dump_json(exclude_none=True).encode()
    if not any(binaries):
        return Response(text, headers=headers, media_type="application/json")
    length = {JSON_LENGTH: str(len(text))}
    return Response(text + b"".join(binaries), headers={**headers, **length}, media_type="application/octet-stream")


def _metadata(tensors: Mapping[str, TensorType]) -> list[TensorMetadata]:
    return [TensorMetadata(name=name, datatype=t.datatype, shape=list(t.shape)) for name, t in tensors.items()]


def _config(tensors: Mapping[str, TensorType]) -> list[dict[str, Any]]:
    return [{"name": name, "data_type": CONFIG_TYPES[t.datatype], "dims": list(t.shape)} for name, t in tensors.items()]
