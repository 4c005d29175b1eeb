"""Networks under short names: `repvgg pull repvgg-a0`.

Parameters and multiply-adds are computed for the fused network. Top-1 is not ours: it is from timm's
results/results-imagenet.csv (github.com/huggingface/pytorch-image-models, commit 0173a139), measured on ImageNet-1k's
validation images with the preprocessing of the same repository.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.manifest import Published
from weights.layout import shapes
from weights.variants import VARIANTS

CLASSES = 1000
STATED_BY = "timm, results/results-imagenet.csv"


@dataclass(frozen=True)
class Network:
    """`top1` as a fraction; `size`: side of the input, pixels."""

    name: str
    variant: str
    repository: str
    size: int
    top1: float

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(shape)) for shape in shapes(VARIANTS[self.variant], CLASSES, deploy=True).values())

    @property
    def multiply_adds(self) -> int:
        """In the convolutions and the classifier, for one image."""
        side, total = self.size, CLASSES * VARIANTS[self.variant].widths[-1]
        for block in VARIANTS[self.variant].blocks():
            side = -(-side // block.stride)
            total += block.out_channels * block.in_channels // block.groups * 9 * side * side
        return total

    @property
    def published(self) -> Published:
        return Published(top1=self.top1, dataset="ImageNet-1k", stated_by=STATED_BY)


def _network(part: str, top1: float, size: int = 224) -> Network:
    lower = part.lower()
    return Network(f"repvgg-{lower}", f"RepVGG-{part}", f"timm/repvgg_{lower}.rvgg_in1k", size, top1)


NETWORKS = {
    network.name: network
    for network in (
        _network("A0", 0.72426),
        _network("A1", 0.74474),
        _network("A2", 0.76488),
        _network("B0", 0.75158),
        _network("B1", 0.78370),
        _network("B1g4", 0.77608),
        _network("B2", 0.78788),
        _network("B2g4", 0.79396),
        _network("B3", 0.80528),
        _network("B3g4", 0.80224),
        _network("D2se", 0.83550, 320),
    )
}


def published(repository: str) -> Published | None:
    return next((network.published for network in NETWORKS.values() if network.repository == repository), None)


def table() -> str:
    """One line for each network, and where top-1 is from."""
    lines = [f"{'name':<14}{'parameters':>11}{'multiply-adds':>15}{'input':>7}{'top-1':>9}  address"]
    for network in NETWORKS.values():
        lines.append(
            f"{network.name:<14}{network.parameters / 1e6:>9.2f} M{network.multiply_adds / 1e9:>13.2f} G"
            f"{network.size:>7}{network.top1:>9.2%}  hf://{network.repository}"
        )
    return "\n".join([*lines, f"top-1: {STATED_BY}; parameters and multiply-adds: computed for the fused network"])
