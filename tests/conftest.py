"""Shared fixtures: drawn images, and a small real bundle whose golden logits were not computed by an engine of ours."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from httpx._transports import default as httpx_transports
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image, ImageDraw

from models import golden, versions
from models.manifest import Accuracy, Artifact, FastPixels, Golden, Labels, Manifest, Network, Preprocess, Training
from models.preprocess import preprocess
from models.store import open_bundle, write_bundle
from service.machine.features import INT8, cpu_flags
from training.deploy import lite

# Bytecode is written even where the environment forbids it, as in containers: each worker and each of the hundreds of
# interpreters that tests start would otherwise compile all of our sources again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Each client of httpx loads all certificate authorities, which takes 29 ms of CPU, even if it speaks plain HTTP: here
# thousands of clients share them.
httpx_transports.create_ssl_context = cache(httpx.create_ssl_context)

TINY_SIZE = 32
TINY_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TINY_SPEC = Preprocess(
    input_size=TINY_SIZE, interpolation="bicubic", crop_pct=1.0, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)
)

DrawImage = Callable[..., bytes]

TESTS = Path(__file__).parent
# What takes longest, so that no worker still runs one of these when the others have finished.
SLOWEST_FIRST = (
    *("training/run/test_loop.py", "training/run/distributed/test_ranks.py", "training/test_convert.py"),
    *("training/test_run.py", "service/engines/test_every_engine.py", "docs/test_pages.py"),
    *("training/test_scripts.py", "k8s", "e2e"),
)
# Slow tests that share nothing but quick fixtures: each may run on another worker.
SPREAD = {"training/run/test_loop.py", "training/test_convert.py", "service/engines/test_every_engine.py"}
# Whole folders whose tests share servers.
TOGETHER = {"e2e", "k8s", "images"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests out to the workers of pytest-xdist (`--dist loadgroup`): the tests of a module stay together, so
    that its fixtures are set up once, and the slowest modules begin."""
    ranks = {place: rank for rank, place in enumerate(SLOWEST_FIRST)}
    for item in items:
        module = item.path.relative_to(TESTS).as_posix()
        if module not in SPREAD:
            folder = module.partition("/")[0]
            item.add_marker(pytest.mark.xdist_group(folder if folder in TOGETHER else module))
    items.sort(key=lambda item: _rank(item.path.relative_to(TESTS).as_posix(), ranks))


def _rank(module: str, ranks: dict[str, int]) -> int:
    return ranks.get(module, ranks.get(module.partition("/")[0], len(ranks)))


@pytest.fixture(autouse=True, scope="module")
def freeze_older_objects() -> None:
    """Leaves out of collections what exists before the tests of a module.

    MindSpore collects garbage before each compilation, of which there are thousands here. In a process that has
    imported everything and knows all tests, that takes half a second.
    """
    gc.collect()
    gc.freeze()


def encode_drawing(seed: int = 0, image_format: str = "JPEG", size: tuple[int, int] = (48, 40)) -> bytes:
    """A picture of coloured ellipses, another one for each seed."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(int(c) for c in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
        box = (int(x), int(y), int(x + size[0] // 2), int(y + size[1] // 2))
        draw.ellipse(box, fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    encoded = BytesIO()
    image.save(encoded, image_format)
    return encoded.getvalue()


def run_in_loop(test: Coroutine[Any, Any, Any]) -> Any:
    problems: list[dict[str, Any]] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        return await asyncio.wait_for(test, timeout=60)

    result = asyncio.run(main())
    assert problems == []
    return result


@pytest.fixture(scope="session")
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`run(coroutine)` in a loop of its own; an exception that nobody retrieved, or a minute without end, fails."""
    return run_in_loop


@pytest.fixture(scope="session")
def draw_image() -> DrawImage:
    """`draw_image(seed, image_format, size)` -> encoded bytes."""
    return encode_drawing


@pytest.fixture(scope="session")
def jpeg_bytes() -> bytes:
    return encode_drawing(0, "JPEG")


@pytest.fixture(scope="session")
def png_bytes() -> bytes:
    return encode_drawing(1, "PNG")


def tiny_network(seed: int = 0, classes: int = len(TINY_LABELS)) -> onnx.ModelProto:
    """Conv stride 4 -> Relu -> mean over the image -> Gemm: 314 parameters for 10 classes, any batch size."""
    rng = np.random.default_rng(seed)
    weights = {
        "conv.weight": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "conv.bias": rng.normal(0, 0.3, 8),
        "head.weight": rng.normal(0, 2.0, (classes, 8)),
        "head.bias": rng.normal(0, 0.3, classes),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["conv"], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMean", ["relu"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["pooled", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, TINY_SIZE, TINY_SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write_tiny_bundle(
    folder: Path,
    network: onnx.ModelProto,
    *,
    truth: onnx.ModelProto | None = None,
    labels: Sequence[str] = TINY_LABELS,
) -> Path:
    """A bundle of `network`, of the version that its folder is named after; its golden logits are those of `truth` (of
    `network` itself when not given)."""
    drawings = {f"{seed}.png": encode_drawing(seed, "PNG") for seed in range(3)}
    tensors = np.stack([preprocess(encoded, TINY_SPEC) for encoded in drawings.values()])
    (logits,) = ReferenceEvaluator(truth or network).run(None, {"image": tensors})
    files = golden.pack(drawings, logits.tolist())
    files["labels.txt"] = "".join(f"{label}\n" for label in labels).encode()
    files["tiny.onnx"] = network.SerializeToString()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = Manifest(
        name="tiny",
        version=folder.name,
        created_at="2026-01-31T12:00:00Z",
        network=Network(variant="tiny", num_classes=len(labels), parameters=314),
        preprocess=TINY_SPEC,
        labels=Labels(file="labels.txt", sha256=digests["labels.txt"]),
        artifacts=[
            Artifact(
                format="onnx",
                precision="fp32",
                file="tiny.onnx",
                sha256=digests["tiny.onnx"],
                input="image",
                output="logits",
                batch="dynamic",
            )
        ],
        golden=Golden(file=golden.FILE, sha256=digests[golden.FILE], tolerance={"fp32": 1e-4}),
        training=Training(
            dataset="drawings",
            evaluated_on="nothing",
            recipe="random weights",
            epochs=0,
            framework="onnx reference",
            git_commit="none",
        ),
    )
    return write_bundle(folder, manifest, files).folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle with a random network of 10 classes on 32 x 32 pixels."""
    return write_tiny_bundle(tmp_path_factory.mktemp("store") / "tiny" / "1", tiny_network())


@pytest.fixture(scope="session")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 1000 classes."""
    labels = [f"class number {number}" for number in range(1000)]
    folder = tmp_path_factory.mktemp("store") / "tiny" / "1"
    return write_tiny_bundle(folder, tiny_network(classes=len(labels)), labels=labels)


@pytest.fixture
def write_version(tmp_path: Path) -> Callable[..., Path]:
    """`write_version(2)` -> the folder of version 2 of a tiny bundle, in a store of the test. Each answers its own way;
    `wrong`: not as its golden logits say."""

    def write(version: int, *, wrong: bool = False) -> Path:
        truth = tiny_network(seed=version)
        network = tiny_network(seed=version + 1000) if wrong else truth
        return write_tiny_bundle(tmp_path / "store" / "tiny" / str(version), network, truth=truth)

    return write


@pytest.fixture(scope="session")
def fast_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a manifest that vouches for fast pixels."""
    measured = FastPixels(images=500, agreement=0.99, exact_top1=0.9, fast_top1=0.898)
    accuracy = Accuracy(top1={"fp32": 0.9}, max_top1_drop=0.005, fast_pixels=measured)
    folder = tmp_path_factory.mktemp("store") / "tiny" / "3"
    return versions.write_version(open_bundle(tiny_bundle), folder, accuracy=accuracy).folder


@pytest.fixture(scope="session")
def large_photo() -> bytes:
    """A JPEG that fast pixels change for the tiny bundle."""
    return encode_drawing(2, "JPEG", (1203, 801))


@pytest.fixture(scope="session")
def int8_instructions() -> None:
    """Skips what computes in int8 where the CPU has no instructions for it."""
    if not INT8 & cpu_flags():
        pytest.skip("without int8 instructions the engines' 16-bit sums overflow, and the golden check refuses them")


@pytest.fixture(scope="session")
def lite_python() -> Path:
    """An interpreter that has MindSpore Lite; `make test` sets it up where there is a Python 3.7."""
    folder = Path(__file__).parents[1] / ".venv-lite"
    if not (folder / ".set-up").exists():
        pytest.skip(
            "MindSpore Lite is not here: python3 scripts/setup.py lite installs it, for which it needs Python 3.7"
        )
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def lite_bundle(tiny_bundle: Path, lite_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with what MindSpore Lite made of its ONNX."""
    folder = tmp_path_factory.mktemp("store") / "tiny" / "2"
    return lite.add_artifact(open_bundle(tiny_bundle), folder, lite_python, lite.TARGETS["cpu"], [])[0].folder


@pytest.fixture(scope="session")
def wrong_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `tiny_bundle`, but the golden logits are those of another network."""
    folder = tmp_path_factory.mktemp("store") / "wrong" / "1"
    return write_tiny_bundle(folder, tiny_network(), truth=tiny_network(seed=1))
