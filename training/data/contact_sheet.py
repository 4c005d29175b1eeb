"""A sheet of training images to look at: de-normalised, in rows, each with its label below."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 112  # minimum width of a cell in pixels; small images are enlarged by an integer factor
GAP, LINE = 6, 13  # pixels between cells, and height of a line of text
FONT_SIZE = 11


def caption(label: NDArray[np.generic], classes: Sequence[str]) -> list[str]:
    """Class id (), or shares (K,) -> lines: the class, or each class with its share, largest first."""
    if label.ndim == 0:
        return [classes[int(label)]]
    shares = np.asarray(label, np.float64)
    order = [int(class_id) for class_id in np.argsort(-shares, kind="stable") if shares[class_id] >= 0.005]
    if len(order) == 1:
        return [classes[order[0]]]
    return [f"{shares[class_id]:.0%} {classes[class_id]}" for class_id in order]


def draw(
    images: NDArray[np.float32],
    captions: Sequence[Sequence[str]],
    mean: Sequence[float],
    std: Sequence[float],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Normalised images (N, 3, S, S) and N captions -> RGB sheet, roughly square, with `notes` below it."""
    size = images.shape[2]
    side = size * max(1, math.ceil(CELL / size))
    lines = max(len(caption) for caption in captions)
    width, height = side + GAP, side + lines * LINE + GAP
    columns = math.ceil(math.sqrt(len(images) * height / width))
    rows = math.ceil(len(images) / columns)
    font = ImageFont.load_default(FONT_SIZE)
    wrapped = [line for note in notes for line in _wrapped(note, columns * width - GAP, font)]
    bottom = rows * height + GAP
    sheet = Image.new("RGB", (columns * width + GAP, bottom + len(wrapped) * (LINE + 1) + bool(wrapped) * GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(wrapped):
        pen.text((GAP, bottom + number * (LINE + 1)), line, "black", font)
    for index, (pixels, caption) in enumerate(zip(_pixels(images, mean, std), captions, strict=True)):
        left, top = GAP + index % columns * width, GAP + index // columns * height
        sheet.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (left, top))
        for number, text in enumerate(caption):
            pen.text((left, top + side + number * LINE), _fitting(text, side, font), "black", font)
    return sheet


def strip(
    plain: NDArray[np.float32], augmented: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]
) -> Image.Image:
    """A normalised image (3, S, S) and its augmented versions (N, 3, S', S'), side by side."""
    side = plain.shape[-1]
    pieces = [*_pixels(plain[None], mean, std), *_pixels(augmented, mean, std)]
    row = Image.new("RGB", (len(pieces) * (side + GAP) - GAP, side), "white")
    for number, pixels in enumerate(pieces):
        row.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), (number * (side + GAP), 0))
    return row


def _pixels(images: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """-> uint8 (N, S, S, 3); values outside 0..1, such as the noise of erased rectangles, are clipped."""
    scale, shift = np.asarray(std, np.float32), np.asarray(mean, np.float32)
    colours = images.transpose(0, 2, 3, 1) * scale + shift
    pixels: NDArray[np.uint8] = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)
    return pixels


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines of whole words, none wider than `width` pixels unless a word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
