"""Fine-tuning as a careful PyTorch script does it, from the same weights and with the same photos as finetuning.py.

python -m benchmarks.transfer_comparison --photos FOLDER [--judge FOLDER] --bundle BUNDLE [--size 96] [--epochs 20]

It follows fastai's `fine_tune`: one epoch of a new classifier with the rest of the network frozen, then the whole
network by one-cycle schedules, whose rates fall towards the first layers; AdamW; label smoothing; random crops, flips,
rotations of up to 10 degrees, and lighting (Howard & Gugger 2020, "fastai: A Layered API for Deep Learning"). The
network is the bundle's deploy form, whose fused kernels are trained as they are. Pixels to judge by are those of the
service. What is judged is the last epoch.

PyTorch is no dependency of this project. In an environment of its own:
pip install torch numpy pillow onnx pydantic
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image, ImageEnhance

from benchmarks.splits import add_flags, lay_out, summary
from models.manifest import Preprocess
from models.preprocess import at_size, decode, images_in, to_tensor
from models.store import open_bundle

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError:
    sys.exit("PyTorch is missing, which only this comparison needs: pip install torch, in an environment of its own")

BATCH, SMOOTHING, DECAY = 32, 0.1, 0.01
FASTEST = 2e-3  # of the classifier while the rest is frozen; half of that afterwards
SPREAD = 100  # how much slower the first layers learn than the classifier
RISING, START = 0.3, 25  # share of the steps in which the rate rises, and what it rises by
DEGREES, LIGHTING, LEAST_AREA = 10, 0.2, 0.35


class Network(nn.Module):
    """The convolutions of a deploy form, each with ReLU; the mean; a new classifier."""

    def __init__(self, model: onnx.ModelProto, classes: int) -> None:
        super().__init__()
        weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self.layers = nn.ModuleList()
        for node in model.graph.node:
            if node.op_type != "Conv":
                continue
            settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            kernel, bias = (torch.from_numpy(weights[name].copy()) for name in node.input[1:])
            groups, stride = settings.get("group", 1), settings["strides"]
            layer = nn.Conv2d(kernel.shape[1] * groups, len(kernel), 3, stride, 1, groups=groups)
            layer.weight.data, layer.bias.data = kernel, bias
            self.layers.append(layer)
        self.classifier = nn.Linear(self.layers[-1].out_channels, classes)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = functional.relu(layer(x))
        return self.classifier(x.mean((2, 3)))

    def groups(self) -> list[list[Any]]:
        """First half, second half, classifier."""
        half = len(self.layers) // 2
        parts = (self.layers[:half], self.layers[half:], self.classifier)
        return [list(part.parameters()) for part in parts]


def augmented(picture: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A random part of the turned, mirrored and relit picture, `size` pixels wide and high."""
    picture = picture.rotate(rng.uniform(-DEGREES, DEGREES), Image.Resampling.BILINEAR, fillcolor=(124, 116, 104))
    area = rng.uniform(LEAST_AREA, 1) * picture.width * picture.height
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    across, down = min(picture.width, math.sqrt(area * aspect)), min(picture.height, math.sqrt(area / aspect))
    left, top = rng.uniform(0, picture.width - across), rng.uniform(0, picture.height - down)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + across, top + down))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        picture = change(picture).enhance(rng.uniform(1 - LIGHTING, 1 + LIGHTING))
    return picture


def one_cycle(progress: float) -> float:
    """0..1 -> a share of the greatest rate: up from 1 / START, and down to nearly nothing, by half cosines."""
    if progress < RISING:
        return 1 / START + (1 - 1 / START) * (1 - math.cos(math.pi * progress / RISING)) / 2
    return (1 + math.cos(math.pi * (progress - RISING) / (1 - RISING))) / 2


class Photos:
    """One side of a split, decoded."""

    def __init__(self, folder: Path, spec: Preprocess) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        files = [path for name in self.classes for path in sorted(images_in(folder / name))]
        self.labels = torch.tensor([self.classes.index(path.parent.name) for path in files])
        self.pictures = [decode(path.read_bytes(), icc=spec.icc) for path in files]


def train(network: Network, photos: Photos, spec: Preprocess, epochs: int, rates: Sequence[float], seed: int) -> None:
    """One cycle. `rates`: the greatest ones, of each of the network's groups; 0: frozen."""
    rng = np.random.default_rng(seed)
    tensor_spec = spec.model_copy(update={"resize": "squash", "resize_to": None, "crop_pct": 1.0})
    groups = [(group, rate) for group, rate in zip(network.groups(), rates, strict=True) if rate]
    optimizer = torch.optim.AdamW([{"params": group, "lr": rate} for group, rate in groups], weight_decay=DECAY)
    steps = len(photos.pictures) // BATCH
    for step in range(epochs * steps):
        if step % steps == 0:
            order = rng.permutation(len(photos.pictures))
        rows = order[step % steps * BATCH :][:BATCH].tolist()
        pictures = [augmented(photos.pictures[row], spec.input_size, rng) for row in rows]
        batch = torch.from_numpy(np.stack([to_tensor(picture, tensor_spec) for picture in pictures]))
        for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * one_cycle(step / (epochs * steps))
        optimizer.zero_grad()
        functional.cross_entropy(network(batch), photos.labels[rows], label_smoothing=SMOOTHING).backward()
        optimizer.step()


def answers(network: Network, photos: Photos, spec: Preprocess) -> NDArray[np.bool_]:
    """(N,) whether each photo is classified right."""
    given = []
    with torch.no_grad():
        for start in range(0, len(photos.pictures), BATCH):
            tensors = [to_tensor(picture, spec) for picture in photos.pictures[start : start + BATCH]]
            given.append(network(torch.from_numpy(np.stack(tensors))).argmax(1))
    right: NDArray[np.bool_] = (torch.cat(given) == photos.labels).numpy()
    return right


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, epochs=20)
    args = parser.parse_args(argv)
    bundle = open_bundle(args.bundle)
    spec = at_size(bundle.manifest.preprocess, args.size)
    model, tops = onnx.load(bundle.path(bundle.artifact(("onnx",), "fp32"))), []
    for seed in args.seeds:
        with TemporaryDirectory(dir=args.photos.parent) as folder:
            lay_out(args.photos, Path(folder, "data"), seed, args.judge, args.per_class)
            photos, judging = (Photos(Path(folder, "data", side), spec) for side in ("train", "val"))
        torch.manual_seed(seed)
        began, network = time.process_time(), Network(model, len(photos.classes))
        train(network, photos, spec, 1, (0, 0, FASTEST), seed)
        half = FASTEST / 2
        train(network, photos, spec, args.epochs, (half / SPREAD, half / math.sqrt(SPREAD), half), seed + 1000)
        tops.append(float(answers(network, judging, spec).mean()))
        print(f"seed {seed}: {tops[-1]:.1%}, {time.process_time() - began:.0f} s of CPU time", flush=True)
    print(f"mean {summary(tops)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
