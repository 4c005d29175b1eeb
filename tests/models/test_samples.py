"""The sample pictures decode as intended, and the program that draws them reproduces them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import models
from models.preprocess import decode, open_image

ROOT = Path(models.__file__).parent.parent
SAMPLES = sorted((ROOT / "models/samples").iterdir())
NAMES = [path.stem for path in SAMPLES]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    subprocess.run([sys.executable, ROOT / "docs/draw_samples", folder], check=True)
    return folder


def stored(path: Path) -> NDArray[Any]:
    return np.asarray(Image.open(path), np.int16)


@pytest.mark.parametrize("path", SAMPLES, ids=NAMES)
def test_a_sample_decodes_and_is_small(path: Path) -> None:
    encoded = path.read_bytes()
    image = decode(encoded)
    assert image.mode == "RGB"
    assert 176 <= min(image.size) <= max(image.size) <= 256
    assert len(encoded) < 40_000
    assert np.asarray(image).std() > 30


def test_the_samples_cover_the_formats_that_clients_send() -> None:
    modes = {path.stem: open_image(path.read_bytes()).mode for path in SAMPLES}
    assert {name: mode for name, mode in modes.items() if mode != "RGB"} == {"banana": "P", "pretzel": "RGBA"}
    turned = {path.stem for path in SAMPLES if open_image(path.read_bytes()).info["orientation"] == 6}
    assert turned == {"cat"}
    cat = (ROOT / "models/samples/cat.jpg").read_bytes()
    assert (open_image(cat).size, decode(cat).size) == ((192, 256), (256, 192))


@pytest.mark.parametrize("path", SAMPLES, ids=NAMES)
def test_the_program_reproduces_the_samples(drawn: Path, path: Path) -> None:
    """PNG bit for bit; JPEG within the difference between encoder releases."""
    assert [other.name for other in sorted(drawn.iterdir())] == [sample.name for sample in SAMPLES]
    delta = np.abs(stored(path) - stored(drawn / path.name))
    if path.suffix == ".png":
        assert delta.max() == 0
        assert Image.open(path).getpalette() == Image.open(drawn / path.name).getpalette()
    else:
        assert delta.max() <= 16
        assert delta.mean() < 0.5
