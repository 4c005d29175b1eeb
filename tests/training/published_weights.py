"""A plain reference of RepVGG with random weights, and these weights as each source publishes them.

The reference is written from the paper (section 3.3 of RepVGG, CVPR 2021) in float64, branch by branch, and is
independent of the code under test.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

EPS = 1e-5


@dataclass
class Norm:
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def __call__(self, x):
        gamma, beta, mean, variance = (
            v.astype(np.float64)[:, None, None] for v in (self.gamma, self.beta, self.mean, self.variance)
        )
        return gamma * (x - mean) / np.sqrt(variance + EPS) + beta


@dataclass
class Branch:
    """A convolution without bias and its batch norm."""

    kernel: np.ndarray
    norm: Norm


@dataclass
class Block:
    stride: int
    groups: int
    dense: Branch
    small: Branch
    identity: Norm | None
    squeeze: tuple[np.ndarray, ...] | None  # kernel and bias of the way down, kernel and bias of the way up

    def __call__(self, x):
        y = self.dense.norm(convolve(x, self.dense.kernel, self.stride, self.groups))
        y = y + self.small.norm(convolve(x, self.small.kernel, self.stride, self.groups))
        if self.identity is not None:
            y = y + self.identity(x)
        if self.squeeze is not None:
            y = y * attention(y, *self.squeeze)
        return np.maximum(y, 0)

    @cached_property
    def fused(self):
        """The fused kernel, found by feeding unit inputs to the block's three branches, which are linear."""
        channels = self.dense.kernel.shape[1] * self.groups
        zero = linear_part(self, np.zeros((1, channels, 5, 5)))
        kernel = np.zeros((zero.shape[1], channels, 3, 3))
        for channel in range(channels):
            image = np.zeros((1, channels, 5, 5))
            image[0, channel, 2, 2] = 1
            kernel[:, channel] = (linear_part(self, image) - zero)[0, :, 1:4, 1:4][:, ::-1, ::-1]
        per_group = channels // self.groups
        outputs = np.arange(len(kernel)) // (len(kernel) // self.groups)
        kernel = np.stack([k[g * per_group : (g + 1) * per_group] for k, g in zip(kernel, outputs, strict=True)])
        return {"weight": kernel.astype(np.float32), "bias": zero[0, :, 2, 2].astype(np.float32)}


def convolve(x, kernel, stride, groups):
    """(N, C_in, H, W) * (C_out, C_in / groups, k, k), zero padding k // 2: written from the definition."""
    pad = kernel.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    split = zip(np.split(windows, groups, axis=1), np.split(kernel.astype(np.float64), groups), strict=True)
    parts = [np.tensordot(part, weights, ((1, 4, 5), (1, 2, 3))) for part, weights in split]
    return np.concatenate(parts, axis=3).transpose(0, 3, 1, 2)


def attention(x, down, down_bias, up, up_bias):
    inner = np.maximum(np.einsum("nc,oc->no", x.mean((2, 3)), down[:, :, 0, 0]) + down_bias, 0)
    return 1 / (1 + np.exp(-np.einsum("nc,oc->no", inner, up[:, :, 0, 0]) - up_bias))[:, :, None, None]


@dataclass
class Reference:
    """A RepVGG with random weights; the statistics of each batch norm resemble those of real activations."""

    stages: list[list[Block]]
    head: np.ndarray
    head_bias: np.ndarray

    def __call__(self, images):
        x = images.astype(np.float64)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return x.mean((2, 3)) @ self.head.astype(np.float64).T + self.head_bias


def random_reference(variant, classes, seed=0, size=32):
    rng = np.random.default_rng(seed)
    x, index, stages = rng.normal(size=(2, 3, size, size)), 0, []
    for width, depth, stride in zip(variant.widths, variant.depths, variant.strides, strict=True):
        stages.append([])
        for position in range(depth):
            groups = variant.groups if index > 0 and index % 2 == 0 else 1
            block = random_block(rng, x, width, stride if position == 0 else 1, groups, variant.squeeze_excite)
            stages[-1].append(block)
            x, index = block(x), index + 1
    head = rng.normal(0, 1 / np.sqrt(width), (classes, width)).astype(np.float32)
    return Reference(stages, head, rng.normal(size=classes).astype(np.float32))


def random_block(rng, x, width, stride, groups, squeeze_excite):
    channels = x.shape[1]

    def branch(size):
        fan_in = channels // groups * size * size
        kernel = rng.normal(0, np.sqrt(2 / fan_in), (width, channels // groups, size, size)).astype(np.float32)
        return Branch(kernel, random_norm(rng, convolve(x, kernel, stride, groups)))

    identity = random_norm(rng, x) if channels == width and stride == 1 else None
    squeeze = None
    if squeeze_excite:
        inner = width // 16
        shapes = ((inner, width, 1, 1), (inner,), (width, inner, 1, 1), (width,))
        squeeze = tuple(rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes)
    return Block(stride, groups, branch(3), branch(1), identity, squeeze)


def random_norm(rng, x):
    channels, spread = x.shape[1], x.std()
    values = (
        rng.normal(0.6, 0.2, channels),
        rng.normal(0, 0.3, channels),
        x.mean() + spread * rng.normal(0, 0.3, channels),
        spread**2 * rng.uniform(0.5, 2, channels),
    )
    return Norm(*(value.astype(np.float32) for value in values))


# How each source names the weights of a network, from its published code: (block's prefix, the names inside).
TORCH_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
MINDSPORE_NORM = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}


@dataclass
class Spelling:
    stem: str
    block: str
    dense: tuple[str, str]
    small: tuple[str, str]
    identity: str
    fused: str
    squeeze: tuple[str, str]
    head: str
    norm: dict
    first_stage: int = 1
    counts_batches: bool = False

    def prefix(self, stage, position):
        return self.stem if stage == 0 else self.block.format(stage - 1 + self.first_stage, position)


SPELLINGS = {
    "pytorch": Spelling(
        "stage0.", "stage{}.{}.", ("rbr_dense.conv", "rbr_dense.bn"), ("rbr_1x1.conv", "rbr_1x1.bn"), "rbr_identity",
        "rbr_reparam", ("se.down", "se.up"), "linear", TORCH_NORM, counts_batches=True,
    ),
    "timm": Spelling(
        "stem.", "stages.{}.{}.", ("conv_kxk.conv", "conv_kxk.bn"), ("conv_1x1.conv", "conv_1x1.bn"), "identity",
        "reparam_conv", ("attn.fc1", "attn.fc2"), "head.fc", TORCH_NORM, first_stage=0, counts_batches=True,
    ),
    "mindcv": Spelling(
        "stage0.", "stage{}.{}.", ("rbr_dense.0", "rbr_dense.1"), ("rbr_1x1.0", "rbr_1x1.1"), "rbr_identity",
        "rbr_reparam", ("se.conv_reduce", "se.conv_expand"), "linear", MINDSPORE_NORM,
    ),
    "modelzoo": Spelling(
        "model.stage0.", "model.stage{}.{}.", ("rbr_dense.0", "rbr_dense.1"), ("rbr_1x1.0", "rbr_1x1.1"),
        "rbr_identity", "rbr_reparam", ("se.down", "se.up"), "model.linear", MINDSPORE_NORM,
    ),
    "own": Spelling(
        "stages.0.0.", "stages.{}.{}.", ("branch_3x3.conv", "branch_3x3.bn"), ("branch_1x1.conv", "branch_1x1.bn"),
        "branch_identity", "conv", ("squeeze_excite.down", "squeeze_excite.up"), "classifier", MINDSPORE_NORM,
    ),
}  # fmt: skip


def spell(reference, source, form):
    """-> name -> array, as in a file of `source`."""
    spelling, arrays = SPELLINGS[source], {}
    for stage, blocks in enumerate(reference.stages):
        for position, block in enumerate(blocks):
            prefix = spelling.prefix(stage, position)
            parts = train_parts(block, spelling) if form == "train" else deploy_parts(block, spelling)
            for name, part in zip(spelling.squeeze, (block.squeeze or ())[::2], strict=False):
                parts[f"{name}.weight"] = part
            for name, part in zip(spelling.squeeze, (block.squeeze or ())[1::2], strict=False):
                parts[f"{name}.bias"] = part
            arrays |= {prefix + name: array for name, array in parts.items()}
    arrays |= {f"{spelling.head}.weight": reference.head, f"{spelling.head}.bias": reference.head_bias}
    if source == "modelzoo":
        arrays = {name: part for whole, array in arrays.items() for name, part in in_groups(whole, array, reference)}
        arrays |= {"moments." + name: array for name, array in arrays.items()}
        arrays |= {"learning_rate": np.float32(0.1), "global_step": np.int32(7), "scale_sense": np.float32(1024)}
    if source == "own":
        arrays |= {"epoch": np.int32(3), "momentum.classifier.bias": reference.head_bias}
    return arrays


def train_parts(block, spelling):
    parts = {}
    for (conv, norm), branch in ((spelling.dense, block.dense), (spelling.small, block.small)):
        parts |= {f"{conv}.weight": branch.kernel} | norm_parts(norm, branch.norm, spelling)
    return parts | (norm_parts(spelling.identity, block.identity, spelling) if block.identity else {})


def norm_parts(name, norm, spelling):
    parts = {f"{name}.{spelling.norm[part]}": getattr(norm, part) for part in spelling.norm}
    return parts | ({f"{name}.num_batches_tracked": np.array(9, np.int64)} if spelling.counts_batches else {})


def deploy_parts(block, spelling):
    return {f"{spelling.fused}.{name}": array for name, array in block.fused.items()}


def linear_part(block, x):
    y = block.dense.norm(convolve(x, block.dense.kernel, 1, block.groups))
    y = y + block.small.norm(convolve(x, block.small.kernel, 1, block.groups))
    return y if block.identity is None else y + block.identity(x)


def in_groups(name, array, reference):
    """The Model Zoo's convolutions hold one kernel per group, in a list even if there is only one group."""
    if array.ndim != 4 or ".se." in name:
        return [(name, array)]
    stage, position = 0, 0
    if not name.startswith("model.stage0."):
        stage, position = (int(part) for part in name.removeprefix("model.stage").split(".")[:2])
    parts = np.split(array, reference.stages[stage][position].groups)
    return [(f"{name.removesuffix('weight')}convs.{index}.weight", part) for index, part in enumerate(parts)]


def narrow(variant):
    """The same depths, groups and branches with few channels, but at least 16 for the attention."""
    return replace(variant, widths=tuple(max(16, width // 512 * 16) for width in variant.widths))


def logits_of(network, images):
    import mindspore as ms

    return network(ms.Tensor(images)).asnumpy()


def images_for(size, count=2):
    return np.random.default_rng(1).normal(size=(count, 3, size, size)).astype(np.float32)
