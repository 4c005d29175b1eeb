"""Cost and accuracy of other decoders and resizers compared with models.preprocess, on real photos.

python -m benchmarks.preprocess FOLDER [--model BUNDLE] [--size 224] [--images N] [--repeats N] [--megapixels M]

All methods run in turn on each photo. For each: CPU milliseconds per photo in all threads (median over photos of the
fastest repeat), the number of bit-identical crops, the differences of the others, and how often the bundle's network
has the same top-1 answer. Libraries that are not installed are skipped; the product needs none of them.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.manifest import Preprocess
from models.pixels.color import to_srgb
from models.preprocess import decode, images_in, open_image, read_pixels, resize_and_crop
from models.store import open_bundle

Pixels = NDArray[np.uint8]
Way = Callable[[bytes, Preprocess], Pixels]


def geometry(width: int, height: int, spec: Preprocess) -> tuple[tuple[int, int], tuple[int, int]]:
    """Resized (width, height), and left and top of the crop in it, as in models.preprocess."""
    short = spec.resize_size
    long_side = int(short * max(width, height) / min(width, height))
    size = (short, long_side) if width <= height else (long_side, short)
    return size, ((size[0] - spec.input_size) // 2, (size[1] - spec.input_size) // 2)


def ours(encoded: bytes, spec: Preprocess) -> Pixels:
    return np.asarray(resize_and_crop(decode(encoded), spec))


def fast(encoded: bytes, spec: Preprocess) -> Pixels:
    """As with `--pixels fast`."""
    return np.asarray(to_srgb(resize_and_crop(read_pixels(open_image(encoded), spec), spec)))


def pillow_box(encoded: bytes, spec: Preprocess) -> Pixels:
    """Resizes only the crop."""
    return cropped_by_box(decode(encoded), spec)


def cropped_by_box(image: Image.Image, spec: Preprocess) -> Pixels:
    size, (left, top) = geometry(*image.size, spec)
    across, down = image.width / size[0], image.height / size[1]
    box = (left * across, top * down, (left + spec.input_size) * across, (top + spec.input_size) * down)
    return np.asarray(image.resize((spec.input_size,) * 2, Image.Resampling.BICUBIC, box=box))


def simplejpeg_pillow(encoded: bytes, spec: Preprocess) -> Pixels:
    import simplejpeg

    return np.asarray(resize_and_crop(Image.fromarray(simplejpeg.decode_jpeg(encoded)), spec))


def turbojpeg_opencv(encoded: bytes, spec: Preprocess) -> Pixels:
    """libjpeg-turbo, then OpenCV's area filter, the closest it has to an antialiased one."""
    import cv2
    import simplejpeg

    return _opencv(simplejpeg.decode_jpeg(encoded), spec, cv2.INTER_AREA)


def opencv_cubic(encoded: bytes, spec: Preprocess) -> Pixels:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    return _opencv(pixels, spec, cv2.INTER_CUBIC)


def _opencv(pixels: Pixels, spec: Preprocess, how: int) -> Pixels:
    import cv2

    size, (left, top) = geometry(pixels.shape[1], pixels.shape[0], spec)
    return cv2.resize(pixels, size, interpolation=how)[top : top + spec.input_size, left : left + spec.input_size]


def vips(encoded: bytes, spec: Preprocess) -> Pixels:
    import pyvips

    image = pyvips.Image.new_from_buffer(encoded, "", access="sequential").colourspace("srgb")
    size, (left, top) = geometry(image.width, image.height, spec)
    resized = image.resize(size[0] / image.width, vscale=size[1] / image.height, kernel="cubic")
    return resized.crop(left, top, spec.input_size, spec.input_size).numpy()


# Method, and the package it needs.
WAYS: dict[str, tuple[Way, str]] = {
    "models.preprocess": (ours, "PIL"),
    "models.preprocess, fast": (fast, "PIL"),
    "Pillow, box": (pillow_box, "PIL"),
    "simplejpeg + Pillow": (simplejpeg_pillow, "simplejpeg"),
    "simplejpeg + OpenCV area": (turbojpeg_opencv, "simplejpeg"),
    "OpenCV cubic": (opencv_cubic, "cv2"),
    "libvips cubic": (vips, "pyvips"),
}


def enlarge(encoded: bytes, megapixels: float) -> bytes:
    """The photo enlarged to that many pixels, as a JPEG of quality 90."""
    image = Image.open(BytesIO(encoded)).convert("RGB")
    factor = math.sqrt(1e6 * megapixels / (image.width * image.height))
    size = round(factor * image.width), round(factor * image.height)
    file = BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    return file.getvalue()


def classify(folder: str, crops: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.int64]:
    """uint8 (N, S, S, 3) -> the top-1 class ids of the bundle's network."""
    import onnxruntime

    bundle = open_bundle(folder)
    path = bundle.path(bundle.artifact(["onnx"], "fp32"))
    tensors = (crops / 255 - np.asarray(spec.mean)) / np.asarray(spec.std)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: tensors.transpose(0, 3, 1, 2).astype(np.float32)})[0]
    return logits.argmax(axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="JPEG photos")
    parser.add_argument("--model", default="repvgg-small-tinyimagenet", help="bundle whose answers to compare")
    parser.add_argument("--size", type=int, default=224, help="side of the timed crop, pixels")
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--megapixels", type=float, help="enlarge the photos first, which adds no detail")
    flags = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(images_in(flags.folder))[: flags.images]]
    if flags.megapixels:
        photos = [enlarge(photo, flags.megapixels) for photo in photos]
    timed = Preprocess(
        input_size=flags.size, interpolation="bicubic", crop_pct=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    answered = open_bundle(flags.model).manifest.preprocess
    ways = {name: way for name, (way, package) in WAYS.items() if find_spec(package)}
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    crops: dict[str, list[Pixels]] = {name: [] for name in ways}
    for photo in photos:
        for name, way in ways.items():
            times = []
            for _ in range(flags.repeats):
                began = time.process_time()
                crop = way(photo, timed)
                times.append(time.process_time() - began)
            milliseconds[name].append(1e3 * min(times))
            crops[name].append(crop)
    first = {
        name: classify(flags.model, np.stack([way(photo, answered) for photo in photos]), answered)
        for name, way in ways.items()
    }
    exact = np.stack(crops["models.preprocess"]).astype(int)
    print(f"{len(photos)} photos of {flags.folder}, crops of {flags.size} pixels, answers of {flags.model}")
    print(
        "| method | ms | identical crops | mean difference / 255 | largest | same answer |\n|---|---|---|---|---|---|"
    )
    for name in ways:
        off = np.abs(np.stack(crops[name]).astype(int) - exact)
        same, agree = (
            int((off.max(axis=(1, 2, 3)) == 0).sum()),
            float((first[name] == first["models.preprocess"]).mean()),
        )
        print(f"| {name} | {median(milliseconds[name]):.2f} | {same} | {off.mean():.2f} | {off.max()} | {agree:.1%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
