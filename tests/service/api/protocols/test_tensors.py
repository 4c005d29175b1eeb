from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.problems import RequestError
from service.api.protocols.tensors import output_tensor, read_images
from service.api.schemas import InputTensor

SIZE = 4
MOST = 3
PIXELS = np.linspace(-2, 2, 2 * 3 * SIZE * SIZE, dtype=np.float32).reshape(2, 3, SIZE, SIZE)


def elements(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


def image(count: Any = 2, binary_data_size: Any = None, **more: Any) -> InputTensor:
    parameters = {} if binary_data_size is None else {"binary_data_size": binary_data_size}
    return InputTensor(**{"name": "image", "datatype": "BYTES", "shape": [count], "parameters": parameters} | more)


def pixels(binary_data_size: Any = None, **more: Any) -> InputTensor:
    return image(
        binary_data_size=binary_data_size, **{"name": "pixels", "datatype": "FP32", "shape": [2, 3, 4, 4]} | more
    )


def read(tensor: InputTensor, binary: bytes = b"") -> list[Any]:
    return list(read_images([tensor], binary, input_size=SIZE, max_images=MOST))


def refusal(tensor: InputTensor, binary: bytes = b"") -> str:
    with pytest.raises(RequestError) as caught:
        read(tensor, binary)
    assert caught.value.code == "malformed_request"
    return str(caught.value)


def same(images: list[NDArray[np.float32]], expected: NDArray[np.float32] = PIXELS) -> bool:
    return len(images) == len(expected) and all(
        got.dtype == np.float32 and np.array_equal(got, want) for got, want in zip(images, expected, strict=True)
    )


def test_bytes_are_a_length_and_then_themselves() -> None:
    binary = elements(b"one", b"")
    assert read(image(binary_data_size=len(binary)), binary) == [b"one", b""]


def test_bytes_in_json_are_base64() -> None:
    texts = [base64.b64encode(b"one").decode(), "data:image/png;base64,dHdv"]
    assert read(image(data=texts)) == [b"one", b"two"]


def test_images_may_have_a_dimension_of_one_each() -> None:
    binary = elements(b"one", b"two")
    assert read(image(shape=[2, 1], binary_data_size=len(binary)), binary) == [b"one", b"two"]
    assert read(image(shape=[2, 1], data=["b25l", "dHdv"])) == [b"one", b"two"]
    assert read(image(shape=[2, 1], data=[["b25l"], ["dHdv"]])) == [b"one", b"two"]


def test_pixels_are_binary_or_flat_or_nested() -> None:
    assert same(read(pixels(PIXELS.nbytes), PIXELS.tobytes()))
    assert same(read(pixels(data=PIXELS.ravel().tolist())))
    assert same(read(pixels(data=PIXELS.tolist())))
    assert same(read(pixels(data=[1] * PIXELS.size)), np.ones_like(PIXELS))


@pytest.mark.parametrize(
    ("binary", "detail"),
    [
        (elements(b"one"), "input image ends after 1 of 2 elements"),
        (elements(b"one", b"two")[:-1], "element 1 says 3 bytes, 2 are left"),
        (elements(b"one") + b"\xff\xff\xff\xff", "element 1 says 4294967295 bytes, 0 are left"),
        (elements(b"one", b"two") + b"!", "1 bytes follow the last element"),
        (b"", "input image ends after 0 of 2 elements"),
    ],
)
def test_bytes_shorter_or_longer_than_they_say_are_refused(binary: bytes, detail: str) -> None:
    assert detail in refusal(image(binary_data_size=len(binary)), binary)


@pytest.mark.parametrize("size", [0, PIXELS.nbytes // 2, PIXELS.nbytes + 4])
def test_pixels_that_are_not_as_many_as_the_shape_says_are_refused(size: int) -> None:
    assert f"FP32 [2, 3, 4, 4] takes {PIXELS.nbytes} bytes, not {size}" in refusal(pixels(size), bytes(size))


@pytest.mark.parametrize(
    "data", [[], [1.0], [1.0] * 95, [[1.0], [2.0, 3.0]], ["1"] * 96, [True] * 96, [None] * 96, [10**400] * 96]
)
def test_json_that_is_not_as_many_numbers_as_the_shape_says_is_refused(data: list[Any]) -> None:
    assert "input pixels: data" in refusal(pixels(data=data))


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (["b25l"], "as many base64 strings as the shape [2] says"),
        (["b25l", 5], "as many base64 strings"),
        (["b25l", "?"], "input image[1]: not valid base64"),
        ("b25l", "neither a list as data nor a binary_data_size"),
        (None, "neither a list as data nor a binary_data_size"),
    ],
)
def test_json_that_is_not_base64_texts_is_refused(data: Any, detail: str) -> None:
    assert detail in refusal(image(data=data))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_pixels_that_no_image_can_have_are_refused_with_their_index(value: float) -> None:
    wrong = PIXELS.copy()
    wrong[1, 2, 3, 3] = value
    assert "input pixels[1] has values that are not finite" in refusal(pixels(wrong.nbytes), wrong.tobytes())
    assert "input pixels[0] has values that are not finite" in refusal(pixels(data=[1e300] * 96))


@pytest.mark.parametrize(
    ("tensor", "wanted"),
    [
        (image(datatype="FP32"), "input image must be BYTES [-1], not FP32 [2]"),
        (image(shape=[2, 2]), "input image must be BYTES [-1], not BYTES [2, 2]"),
        (image(shape=[2, 1, 1]), "input image must be BYTES [-1], not BYTES [2, 1, 1]"),
        (image(shape=[]), "input image must be BYTES [-1], not BYTES []"),
        (pixels(datatype="FP64"), "input pixels must be FP32 [-1, 3, 4, 4], not FP64"),
        (pixels(shape=[2, 4, 4, 3]), "input pixels must be FP32 [-1, 3, 4, 4], not FP32 [2, 4, 4, 3]"),
        (pixels(shape=[2, 3, 4, 10**30]), "must be FP32 [-1, 3, 4, 4]"),
        (image(0), "input image is empty: send at least one image"),
        (image(parameters={"shared_memory_region": "r"}), "image: shared memory is not supported"),
    ],
)
def test_another_type_or_shape_is_told_the_right_one(tensor: InputTensor, wanted: str) -> None:
    assert wanted in refusal(tensor)


@pytest.mark.parametrize("size", [5, 2**40, -1, "7"])
def test_the_declared_size_is_that_of_the_bytes_that_came(size: Any) -> None:
    assert f"binary_data_size is {size}, but 7 bytes follow the JSON" in refusal(image(1, size), elements(b"one"))


def test_bytes_that_no_input_claims_are_refused() -> None:
    assert "3 bytes follow the JSON, but input image has no binary_data_size" in refusal(image(data=["", ""]), b"abc")


@pytest.mark.parametrize("count", [MOST + 1, 10**30])
def test_too_many_images_are_refused_by_the_shape_alone(count: int) -> None:
    with pytest.raises(RequestError, match=f"more than {MOST} images") as caught:
        read(image(count, 0))
    assert caught.value.code == "too_many_images"


@pytest.mark.parametrize("inputs", [[], [image(), pixels()], [image(), image()], [image(name="picture")]])
def test_a_request_has_one_input(inputs: list[InputTensor]) -> None:
    with pytest.raises(RequestError, match="send one input, image or pixels, not"):
        read_images(inputs, b"", input_size=SIZE, max_images=MOST)


def test_outputs_are_flat_json_or_binary() -> None:
    tensor, binary = output_tensor("label", "BYTES", [["cat", "hört"], ["", "dog"]], binary=True)
    assert (tensor.shape, tensor.parameters, tensor.data) == ([2, 2], {"binary_data_size": len(binary)}, None)
    assert binary == elements(b"cat", "hört".encode(), b"", b"dog")
    tensor, binary = output_tensor("class_id", "INT64", [[3, 1]], binary=True)
    assert binary == struct.pack("<qq", 3, 1)
    tensor, binary = output_tensor("score", "FP32", [[0.75], [0.5]], binary=False)
    assert (tensor.shape, tensor.parameters, tensor.data, binary) == ([2, 1], None, [0.75, 0.5], b"")
    assert output_tensor("label", "BYTES", [["cat"]], binary=False)[0].data == ["cat"]
