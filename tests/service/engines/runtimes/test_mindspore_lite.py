"""The real MindSpore Lite, in the interpreter that supports it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import BundleError
from models.manifest import Manifest
from models.store import Bundle, open_bundle
from service.engines.base import Engine
from service.engines.loading import load_engine
from service.engines.runtimes.onnxruntime import OnnxRuntimeEngine
from service.errors import EngineUnavailable

IMAGES = np.random.default_rng(0).normal(size=(9, 3, 32, 32)).astype(np.float32)

Start = Callable[..., Engine]


@pytest.fixture
def start(lite_python: Path) -> Iterator[Start]:
    """`start(bundle, **options)` -> the engine, in a process."""
    with ExitStack() as stack:

        def run(bundle: Bundle, **options: Any) -> Engine:
            engine = load_engine("mindspore-lite", bundle, "fp32", 1, python=str(lite_python), options=options)
            stack.callback(engine.close)
            return engine

        yield run


@pytest.fixture
def changed(lite_bundle: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """`changed(content, **fields)` -> the bundle with another MINDIR and other fields of its artifact."""

    def change(content: bytes | None = None, **fields: Any) -> Bundle:
        folder = tmp_path / "changed"
        shutil.copytree(lite_bundle, folder)
        manifest = open_bundle(lite_bundle).manifest
        onnx, artifact = manifest.artifacts
        if content is not None:
            (folder / artifact.file).write_bytes(content)
            fields["sha256"] = hashlib.sha256(content).hexdigest()
        artifacts = [onnx, artifact.model_copy(update=fields)]
        text = manifest.model_copy(update={"artifacts": artifacts}).to_json()
        (folder / "manifest.json").write_text(Manifest.from_json(text).to_json())
        return open_bundle(folder)

    return change


@pytest.fixture
def expected(lite_bundle: Path) -> np.ndarray:
    """The logits of IMAGES by ONNX Runtime."""
    return OnnxRuntimeEngine.open(open_bundle(lite_bundle), "fp32", threads=1).infer(IMAGES)


def test_its_logits_equal_those_of_onnx_runtime_in_batches_of_any_size(
    start: Start, lite_bundle: Path, expected: np.ndarray
) -> None:
    engine = start(open_bundle(lite_bundle))
    assert (engine.name, engine.precision) == ("mindspore-lite", "fp32")
    for size in (1, 9, 2, 5, 1):
        np.testing.assert_allclose(engine.infer(IMAGES[:size]), expected[:size], atol=1e-4)


def test_a_batch_is_padded_to_the_next_size_and_a_larger_one_is_split(
    start: Start, changed: Callable[..., Bundle], expected: np.ndarray
) -> None:
    engine = start(changed(batch=[4, 2]))
    for size in range(1, 10):
        np.testing.assert_allclose(engine.infer(IMAGES[:size]), expected[:size], atol=1e-4)


def test_a_file_that_is_no_network_raises_bundle_error(start: Start, changed: Callable[..., Bundle]) -> None:
    with pytest.raises(BundleError, match=r"model\.lite\.mindir cannot be loaded by MindSpore Lite 2\.0\.0"):
        start(changed(b"no network"))


def test_an_input_that_differs_from_the_manifest_is_rejected(start: Start, changed: Callable[..., Bundle]) -> None:
    with pytest.raises(BundleError, match=r"has the inputs .*'image'.*; the manifest wants one, 'pixels'"):
        start(changed(input="pixels"))


def test_the_error_for_a_mindir_of_a_newer_mindspore_says_what_to_do(start: Start) -> None:
    bundle = open_bundle("repvgg-tiny-cifar10")
    with pytest.raises(
        BundleError, match=r"written by mindspore 2\.10.* Lite 2\.0\.0 cannot .* python -m training\.lite"
    ):
        start(bundle)


def test_a_missing_ascend_device_is_named(start: Start, lite_bundle: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"on ascend310, device id 3: .*npu-smi info"):
        start(open_bundle(lite_bundle), device="ascend310", device_id=3)
