"""The names and shapes of a variant's weights under our names, in both forms.

`stages.S.B.branch_3x3.conv.weight` etc. in a train form, `stages.S.B.conv.weight` in the deploy form, and
`classifier.weight` in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from weights.errors import CheckpointError
from weights.fuse import fuse_weights
from weights.variants import Block, Variant

Weights = Mapping[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

BATCH_NORM_EPS = 1e-5  # of every source
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def is_train_form(weights: Weights) -> bool:
    return any(".branch_3x3." in name for name in weights)


def shapes(variant: Variant, classes: int, *, deploy: bool) -> Shapes:
    """Name -> shape of every weight."""
    expected: Shapes = {"classifier.weight": (classes, variant.widths[-1]), "classifier.bias": (classes,)}
    for block in variant.blocks():
        parts = _deploy_parts(block) if deploy else _train_parts(block, variant)
        if variant.squeeze_excite:
            parts = [*parts, *_squeeze_excite(block)]
        expected |= {f"{block.name}.{name}": shape for name, shape in parts}
    return expected


def _kernel(block: Block, size: int) -> tuple[int, ...]:
    return block.out_channels, block.in_channels // block.groups, size, size


def _deploy_parts(block: Block) -> list[tuple[str, tuple[int, ...]]]:
    return [("conv.weight", _kernel(block, 3)), ("conv.bias", (block.out_channels,))]


def _train_parts(block: Block, variant: Variant) -> list[tuple[str, tuple[int, ...]]]:
    qa = variant.block == "qarepvgg"
    small = "branch_1x1.weight" if qa else "branch_1x1.conv.weight"
    kernels = [("branch_3x3.conv.weight", _kernel(block, 3)), (small, _kernel(block, 1))]
    norms = ["branch_3x3.bn", "bn" if qa else "branch_1x1.bn"]
    if block.keeps_shape and not qa:
        norms.append("branch_identity")
    return [*kernels, *((f"{norm}.{part}", (block.out_channels,)) for norm in norms for part in _NORM)]


def _squeeze_excite(block: Block) -> Iterator[tuple[str, tuple[int, ...]]]:
    inner, width = block.out_channels // 16, block.out_channels
    yield from (("squeeze_excite.down.weight", (inner, width, 1, 1)), ("squeeze_excite.down.bias", (inner,)))
    yield from (("squeeze_excite.up.weight", (width, inner, 1, 1)), ("squeeze_excite.up.bias", (width,)))


def mismatches(weights: Weights, variant: Variant, classes: int) -> list[str]:
    """A line for every weight that is missing, unused or misshapen."""
    expected = shapes(variant, classes, deploy=not is_train_form(weights))
    problems = [f"missing: {name}" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"unused: {name}" for name in sorted(weights.keys() - expected.keys())]
    return problems + [
        f"{name}: shape {weights[name].shape}, expected {expected[name]}"
        for name in sorted(expected.keys() & weights.keys())
        if weights[name].shape != expected[name]
    ]


def fused(weights: Weights, variant: Variant, classes: int) -> dict[str, NDArray[Any]]:
    """Weights of either form -> those of the deploy form. Raises CheckpointError that names all that do not fit."""
    if problems := mismatches(weights, variant, classes):
        raise CheckpointError("the weights belong to another network:\n  " + "\n  ".join(problems))
    return fuse_weights(weights, variant, BATCH_NORM_EPS) if is_train_form(weights) else dict(weights)
