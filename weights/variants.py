"""The RepVGG family as a table of numbers, and the QARepVGG form of each variant.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, tables 2 and 3, section 3.4.
Chu et al., "Make RepVGG Greater Again: A Quantization-aware Approach", AAAI 2024, arXiv:2212.01593, figure 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Block:
    """One block of a variant; stride and groups are those of its 3x3 convolution."""

    stage: int
    position: int
    in_channels: int
    out_channels: int
    stride: int
    groups: int

    @property
    def name(self) -> str:
        """The common prefix of the names of its weights."""
        return f"stages.{self.stage}.{self.position}"

    @property
    def keeps_shape(self) -> bool:
        """Whether output and input have the same shape, so that the block has an identity branch."""
        return self.in_channels == self.out_channels and self.stride == 1


@dataclass(frozen=True)
class Variant:
    """`widths` and `depths` of the stages; stage 0 is the stem's single block.

    `groups` applies to every second block (the paper's g2 and g4: blocks 2, 4, 6... counted from the stem at 0).
    `strides` are those of each stage's first block. `block` says where the train form has its batch norms: in each
    branch (repvgg), or in the 3x3 branch and after the sum (qarepvgg). The deploy form is the same for both.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    groups: int = 1
    squeeze_excite: bool = False
    strides: tuple[int, int, int, int, int] = (2, 2, 2, 2, 2)
    block: Literal["repvgg", "qarepvgg"] = "repvgg"

    def blocks(self) -> Iterator[Block]:
        """All blocks, from the image to the classifier."""
        in_channels, index = 3, 0
        for stage, (width, depth, first_stride) in enumerate(zip(self.widths, self.depths, self.strides, strict=True)):
            for position in range(depth):
                stride = first_stride if position == 0 else 1
                groups = self.groups if index > 0 and index % 2 == 0 else 1
                yield Block(stage, position, in_channels, width, stride, groups)
                in_channels, index = width, index + 1


def _scaled(depths: tuple[int, int, int, int], a: float, b: float, groups: int = 1, se: bool = False) -> Variant:
    """The paper's scaling: widths 64a, 128a, 256a, 512b after a stem of min(64, 64a)."""
    widths = (min(64, int(64 * a)), int(64 * a), int(128 * a), int(256 * a), int(512 * b))
    return Variant(widths, (1, *depths), groups, se)


_A, _B, _D = (2, 4, 14, 1), (4, 6, 16, 1), (8, 14, 24, 1)

VARIANTS: dict[str, Variant] = {
    "RepVGG-A0": _scaled(_A, 0.75, 2.5),
    "RepVGG-A1": _scaled(_A, 1.0, 2.5),
    "RepVGG-A2": _scaled(_A, 1.5, 2.75),
    "RepVGG-B0": _scaled(_B, 1.0, 2.5),
    "RepVGG-B1": _scaled(_B, 2.0, 4.0),
    "RepVGG-B1g2": _scaled(_B, 2.0, 4.0, groups=2),
    "RepVGG-B1g4": _scaled(_B, 2.0, 4.0, groups=4),
    "RepVGG-B2": _scaled(_B, 2.5, 5.0),
    "RepVGG-B2g2": _scaled(_B, 2.5, 5.0, groups=2),
    "RepVGG-B2g4": _scaled(_B, 2.5, 5.0, groups=4),
    "RepVGG-B3": _scaled(_B, 3.0, 5.0),
    "RepVGG-B3g2": _scaled(_B, 3.0, 5.0, groups=2),
    "RepVGG-B3g4": _scaled(_B, 3.0, 5.0, groups=4),
    "RepVGG-D2se": _scaled(_D, 2.5, 5.0, se=True),
    # Our own, for 32x32 images: stride 1 in the stem, a last feature map of 4x4, 99 million multiply-adds.
    "RepVGG-Tiny": Variant((32, 96, 192, 256, 256), (1, 2, 3, 1, 1), strides=(1, 2, 2, 2, 1)),
    # Our own, for 64x64 images: stride 2 in the stem, a last feature map of 4x4, 139 million multiply-adds, 3.4 million
    # parameters with 200 classes. Of three candidates its training step was as fast as that of (48, 96, 192, 256, 256),
    # (1, 2, 3, 1, 1) with strides (2, 2, 2, 1, 1), which has 2.0 million parameters, and about a fifth faster than that
    # of (48, 48, 96, 192, 384), (1, 1, 2, 4, 2) with strides (2, 1, 2, 2, 2).
    "RepVGG-Small": Variant((48, 96, 192, 384, 384), (1, 2, 4, 1, 1), strides=(2, 2, 2, 2, 1)),
    # Three blocks, one of them with an identity branch: to try a recipe, a device or a pipeline, since it compiles in
    # seconds. It is not meant to classify well.
    "RepVGG-Smoke": Variant((32, 32, 64, 64, 64), (1, 1, 1, 0, 0), strides=(1, 1, 2, 2, 1)),
}
# Published RepVGGs that this table does not hold, and why: lower-case name -> reason.
ABSENT = {
    "repvggplus-l2pse": "its blocks have squeeze-and-excitation after the nonlinearity, and it has three auxiliary "
    "classifiers, so it is another network than these",
}
VARIANTS |= {f"QA{name}": replace(variant, block="qarepvgg") for name, variant in VARIANTS.items()}
