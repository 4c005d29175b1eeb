"""Runs in timm's own environment: random networks of timm, saved as timm publishes them, and what timm computes.

`python timm_truth.py FOLDER PHOTO...` reads FOLDER/cases.json, {name: {"architecture", "num_classes", recipe...}}, and
writes FOLDER/NAME/config.json and model.safetensors, and FOLDER/NAME.npz with `tensors` and `logits` of the photos.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf


def random_network(architecture: str, classes: int) -> torch.nn.Module:
    """With weights of the scale of trained ones, and statistics of batches that are not those of the start."""
    torch.manual_seed(5)
    model = timm.create_model(architecture, pretrained=False, num_classes=classes)
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.float32 and tensor.dim() > 1:
            torch.nn.init.normal_(tensor, std=(1 / tensor[0].numel()) ** 0.5)
        elif name.endswith("running_mean") or name.endswith("bias"):
            torch.nn.init.normal_(tensor, std=0.1)
        elif name.endswith(("running_var", "weight")):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def upright(photo: str) -> Image.Image:
    """As a person sees it; timm itself ignores the orientation that a camera notes."""
    return ImageOps.exif_transpose(Image.open(photo)).convert("RGB")


def main(folder: Path, photos: list[str]) -> None:
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        architecture, classes = case.pop("architecture"), case.pop("num_classes")
        model = random_network(architecture, classes)
        recipe = {**model.pretrained_cfg, **case}
        model.pretrained_cfg = recipe
        save_for_hf(model, folder / name, safe_serialization=True)
        transform = create_transform(**resolve_data_config(pretrained_cfg=recipe, model=model, use_test_size=True))
        tensors = torch.stack([transform(upright(photo)) for photo in photos])
        with torch.inference_mode():
            logits = model(tensors)
        assert logits.shape == (len(photos), classes)
        np.savez(folder / f"{name}.npz", tensors=tensors.numpy(), logits=logits.numpy())
        print(name, tuple(tensors.shape), float(logits.std()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
