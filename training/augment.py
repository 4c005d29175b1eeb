"""What happens to a training image, as MindData's C++ operators."""

from __future__ import annotations

from typing import Any

from mindspore.dataset import vision

from training.config import TrainConfig

_INTERPOLATION = {
    "nearest": vision.Inter.NEAREST,
    "bilinear": vision.Inter.LINEAR,
    "bicubic": vision.Inter.PILCUBIC,  # Inter.BICUBIC is another filter than the one evaluation uses
}


def operations(config: TrainConfig, *, encoded: bool) -> list[Any]:
    """uint8 image, encoded (bytes,) or RGB (H, W, 3) -> float32 (3, S, S)."""
    return [*_crop(config, encoded=encoded), vision.RandomHorizontalFlip(), *_normalise(config)]


def _crop(config: TrainConfig, *, encoded: bool) -> list[Any]:
    size, filter_ = config.image_size, _INTERPOLATION[config.interpolation]
    if config.crop == "padded":
        decoding = [vision.Decode()] if encoded else []
        return [*decoding, vision.Resize((size, size), filter_), vision.RandomCrop(size, config.crop_padding)]
    # decodes no more of a JPEG than the crop needs
    operation = vision.RandomCropDecodeResize if encoded else vision.RandomResizedCrop
    return [operation(size, scale=(0.08, 1.0), interpolation=filter_)]


def _normalise(config: TrainConfig) -> list[Any]:
    mean, std = ([255.0 * value for value in values] for values in (config.mean, config.std))
    return [vision.Normalize(mean, std), vision.HWC2CHW()]
