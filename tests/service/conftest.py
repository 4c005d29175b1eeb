"""The shipped network in every precision, `repvgg ...` run in this process, images on disk, and a fake root."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import pytest

from models import golden
from models.explanation.features import explained, without_features
from models.manifest import Accuracy
from models.store import Bundle, open_bundle
from models.versions import write_version
from service.cli import main
from training.deploy import precisions

# Wide enough for any engine; what the shipped bundle's are and how they were measured stands in training.quantize.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.1, "int8": 1.0}


@pytest.fixture(scope="session")
def full_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle with artifacts in fp16 and int8, and a manifest that vouches for all precisions."""
    shipped = open_bundle("repvgg-tiny-cifar10")
    fp32 = shipped.artifact(["onnx"], "fp32")
    model = without_features(onnx.load_model(shipped.path(fp32)))
    images, _ = golden.load(shipped)
    models = {"int8": precisions.int8(model, [images], "minmax"), "fp16": precisions.fp16(model)}
    artifacts, files = [], {}
    for precision, made in models.items():
        found = explained(made)
        assert found is not None
        artifact, content = found.of(fp32.model_copy(update={"precision": precision, "file": f"{precision}.onnx"}))
        artifacts.append(artifact)
        files |= content
    accuracy = Accuracy(top1={"fp32": 0.8566, "int8": 0.8540}, max_top1_drop=0.005)
    folder = tmp_path_factory.mktemp("store") / "full" / "1"
    return write_version(shipped, folder, artifacts, files, TOLERANCE, accuracy=accuracy)


@pytest.fixture
def write_root(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """`write_root({"proc/self/cgroup": "0::/"})` -> the root directory, with the files of all calls so far."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def repvgg() -> Iterator[Callable[..., Ended]]:
    """`repvgg("classify", path, environ={...})` -> exit code and what was printed."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    def run(*arguments: Any, environ: dict[str, str] | None = None, err: StringIO | None = None) -> Ended:
        out, err = StringIO(), err or StringIO()
        # Of equally good engines `auto` takes whichever is faster at the moment.
        code = main([str(word) for word in arguments], {"REPVGG_ENGINE": "onnxruntime"} | (environ or {}), out, err)
        return Ended(code, out.getvalue(), err.getvalue())

    yield run
    root.handlers[:], root.level = before


@pytest.fixture
def photos(tmp_path: Path, draw_image: Callable[..., bytes]) -> Path:
    """cat/0..4.jpg, dog/0..3.png, and what is no image beside them."""
    for label, count, image_format in (("cat", 5, "JPEG"), ("dog", 4, "PNG")):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for seed in range(count):
            suffix = ".jpg" if image_format == "JPEG" else ".PNG"
            (folder / f"{seed}{suffix}").write_bytes(draw_image(seed, image_format))
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "cat" / ".hidden.jpg").write_text("no image")
    return tmp_path / "photos"
