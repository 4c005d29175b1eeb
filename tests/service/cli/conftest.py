"""`repvgg ...` run in this process, with streams and environment of its own; and images on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from service.cli import main


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
