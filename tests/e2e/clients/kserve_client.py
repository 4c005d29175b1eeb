"""What KServe's own client says of a server. Runs in .venv-kserve: URL MODEL IMAGE... -> one JSON object on stdout."""

import asyncio
import base64
import json
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest.v2_datamodels import ModelMetadataResponse, ServerMetadataResponse


def encoded(images, *, binary):
    """JSON has no bytes: there an image is base64."""
    values = images if binary else [base64.b64encode(image).decode() for image in images]
    tensor = InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)
    return tensor


def request_of(model, tensor, *, binary):
    outputs = [RequestedOutput(name, {"binary_data": binary}) for name in ("label", "class_id", "score")]
    return InferRequest(model, [tensor], request_outputs=outputs, parameters={"top_k": 3})


def rows_of(answer):
    """-> for each image its (label, class_id, score)."""
    label, class_id, score = (answer.get_output_by_name(name).as_numpy() for name in ("label", "class_id", "score"))
    labels = [[text.decode() if isinstance(text, bytes) else text for text in row] for row in label.tolist()]
    rows = zip(labels, class_id.tolist(), score.tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in rows]


async def error_of(work):
    try:
        await work
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return None


async def main(url, model, *paths):
    images = [Path(path).read_bytes() for path in paths]  # noqa: ASYNC240  # before anything else runs
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client, httpx.AsyncClient(base_url=url) as plain:
        tensors = {binary: encoded(images, binary=binary) for binary in (True, False)}
        facts = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, model),
            "other_ready": await client.is_model_ready(url, "other"),
            # The client has no calls for metadata, but the models of its server.
            "server": ServerMetadataResponse.model_validate((await plain.get("/v2")).json()).model_dump(),
            "model": ModelMetadataResponse.model_validate((await plain.get(f"/v2/models/{model}")).json()).model_dump(),
        }
        for name, binary in (("binary", True), ("json", False)):
            answer = await client.infer(url, request_of(model, tensors[binary], binary=binary), model_name=model)
            facts[name] = rows_of(answer)
        facts["error"] = await error_of(
            client.infer(url, request_of(model, encoded([b"junk"], binary=True), binary=True), model_name=model)
        )
    print(json.dumps(facts))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
