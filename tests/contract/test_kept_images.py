"""Images that the service keeps are a data set that training reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.feedback.folder import Kept, KeptFolder
from training.data.datasets import scan
from training.own.photos.collection import collect


def test_training_reads_what_the_service_keeps(tmp_path: Path, draw_image: Callable[..., bytes]) -> None:
    folder = KeptFolder(tmp_path, 1 << 30)
    formats = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    for number, name in enumerate(formats):
        label = ("cat", "tench, Tinca tinca")[number % 2]
        folder.add(Kept(draw_image(number, name), f"{number}", 0, "tiny 1", label, 0.4, {}))
    images = scan(tmp_path, 2)
    assert images.classes == ("cat", "tench, Tinca tinca")
    assert len(images) == len(formats)
    assert {path.suffix for path, _ in images.images} == {".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff"}
    assert len(collect(tmp_path).photos) == len(formats)
