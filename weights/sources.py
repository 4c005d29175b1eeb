"""How other projects name the weights of a RepVGG, and the preprocessing behind their published accuracy.

1. an unknown name is kept unchanged, so that the strict loader reports it as unused;
2. two names for the same weight are an error;
3. the preprocessing is the one published for the source and variant; it is never guessed.

The tables were written from the sources' public code, which each of them cites. Our own names are described in
`weights.layout`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.manifest import Preprocess
from weights.errors import CheckpointError, UnknownVariant
from weights.variants import ABSENT, VARIANTS

Array = NDArray[Any]
Renames = tuple[tuple[str, str], ...]

# PyTorch's names in a batch norm, applied after the rest of a name is translated. MindSpore's names are the same as
# ours, except in its newer mint layers, which use PyTorch's.
_BATCH_NORM: Renames = (
    (r"(\.bn|\.branch_identity)\.weight$", r"\1.gamma"),
    (r"(\.bn|\.branch_identity)\.bias$", r"\1.beta"),
    (r"(\.bn|\.branch_identity)\.running_mean$", r"\1.moving_mean"),
    (r"(\.bn|\.branch_identity)\.running_var$", r"\1.moving_variance"),
)

# github.com/DingXiaoH/RepVGG: repvgg.py, se_block.py. mindcv (mindcv/models/repvgg.py, layers/squeeze_excite.py) and
# the Model Zoo (github.com/mindspore-ai/models: research/cv/repvgg/src/models/repvgg.py) use the same names, except
# that MindSpore's SequentialCell numbers the two parts of a branch 0 and 1. So does github.com/cxxgtxy/QARepVGG:
# repvgg.py, QARepVGGBlockV2, its default.
_RBR: Renames = (
    (r"^stage0\.", "stages.0.0."),
    (r"^stage(\d+)\.(\d+)\.", r"stages.\1.\2."),
    (r"\.rbr_dense\.(conv|0)\.", ".branch_3x3.conv."),
    (r"\.rbr_dense\.(bn|1)\.", ".branch_3x3.bn."),
    (r"\.rbr_1x1\.(conv|0)\.", ".branch_1x1.conv."),
    (r"\.rbr_1x1\.(bn|1)\.", ".branch_1x1.bn."),
    (r"\.rbr_1x1\.weight$", ".branch_1x1.weight"),  # QARepVGG, which has no batch norm there
    (r"\.rbr_identity\.", ".branch_identity."),
    (r"\.rbr_reparam\.", ".conv."),
    (r"\.se\.(down|conv_reduce)\.", ".squeeze_excite.down."),
    (r"\.se\.(up|conv_expand)\.", ".squeeze_excite.up."),
    (r"^linear\.", "classifier."),
    *_BATCH_NORM,
)

# github.com/huggingface/pytorch-image-models: timm/models/byobnet.py. Its stages start after the stem.
_TIMM: Renames = (
    *((rf"^stages\.{stage}\.", f"stages.{stage + 1}.") for stage in (3, 2, 1, 0)),
    (r"^stem\.", "stages.0.0."),
    (r"\.conv_kxk\.", ".branch_3x3."),
    (r"\.conv_1x1\.", ".branch_1x1."),
    (r"\.identity\.", ".branch_identity."),
    (r"\.reparam_conv\.", ".conv."),
    (r"\.attn\.fc1\.", ".squeeze_excite.down."),
    (r"\.attn\.fc2\.", ".squeeze_excite.up."),
    (r"^head\.fc\.", "classifier."),
    *_BATCH_NORM,
)

# Prefixes from wrappers around a network: PyTorch's DataParallel and compile, the Model Zoo's NetWithLoss, ...
_WRAPPERS = re.compile(r"^((module|model|network|_backbone|_orig_mod)\.)+")
# Entries of a checkpoint that are not weights of the network: PyTorch's counter of batches; MindSpore's optimizers,
# loss scale, progress and moving average (the Model Zoo's is not usable: it adds where it should assign).
_STATE = re.compile(
    r".*\.num_batches_tracked"
    r"|(moments|accum|stat|moment1|moment2|adam_m|adam_v|lamb_m|lamb_v|_ema_weights)\..*"
    r"|learning_rate|momentum|global_step|beta1_power|beta2_power|epoch_num|step_num"
    r"|scale_sense|current_iterator_step|last_overflow_iterator_step"
)
_OWN_STATE = re.compile(r"(?!(stages|classifier)\.).*")

# The Model Zoo's GroupConv2d (src/models/layers/group_conv.py), which replaces every convolution on Ascend.
_PART_OF_GROUPS = re.compile(r"(.*\.conv)\.convs\.(\d+)\.(weight|bias)")


def _photo(
    interpolation: Literal["bilinear", "bicubic"],
    *,
    size: int = 224,
    crop_pct: float = 0.875,
    crop_offset_rounding: Literal["floor", "round"] = "floor",
) -> Preprocess:
    return Preprocess(
        input_size=size,
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_offset_rounding=crop_offset_rounding,
        icc="ignore",  # as the published pipelines, with which the published accuracy was measured
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _torchvision(arch: str) -> Preprocess:
    """torchvision's Resize truncates the long side, and its CenterCrop rounds the offset.

    Official: test.py (Resize(256), CenterCrop(224); README.md tests D2se with `-r 320`, which is Resize(320),
    CenterCrop(320)). timm: default_cfgs of byobnet.py (224, crop_pct 0.875, bilinear; D2se 320 and 1.0).
    """
    if arch == "RepVGG-D2se":
        return _photo("bilinear", size=320, crop_pct=1.0, crop_offset_rounding="round")
    return _photo("bilinear", crop_offset_rounding="round")


def _mindcv(arch: str) -> Preprocess:
    """configs/repvgg/*_ascend.yaml: image_resize 224, crop_pct 0.875, one interpolation per variant.

    MindData's Inter.BICUBIC and Inter.LINEAR do not antialias when they shrink an image, while the filters of a bundle
    do, like Pillow's. A manifest cannot express the former, so this is the closest match but not identical.
    """
    return _photo("bicubic" if arch in ("RepVGG-A0", "RepVGG-B1g2", "RepVGG-B1g4") else "bilinear")


def _modelzoo(arch: str) -> Preprocess:
    """src/data/imagenet.py: Resize(256, Inter.PILCUBIC), CenterCrop(224)."""
    return _photo("bicubic")


def _own(arch: str) -> Preprocess:
    """The preprocessing of the recipe in training/recipes, with which training.train evaluates."""
    return _photo("bicubic" if arch == "RepVGG-A0" else "bilinear").model_copy(update={"icc": "srgb"})


@dataclass(frozen=True)
class Source:
    """`preprocess` maps a variant to its published preprocessing; `state` matches entries that are not weights."""

    title: str
    renames: Renames
    preprocess: Callable[[str], Preprocess]
    state: re.Pattern[str] = _STATE


SOURCES: dict[str, Source] = {
    "pytorch": Source("github.com/DingXiaoH/RepVGG", _RBR, _torchvision),
    "timm": Source("timm", _TIMM, _torchvision),
    "mindcv": Source("mindcv", _RBR, _mindcv),
    "modelzoo": Source("the MindSpore Model Zoo", _RBR, _modelzoo),
    "own": Source("training.train", (), _own, _OWN_STATE),
}


def check_arch(arch: str) -> None:
    """Raises UnknownVariant for a variant that is not in the table."""
    if reason := ABSENT.get(arch.lower().replace("_", "-")):
        raise UnknownVariant(f"{arch} is not supported: {reason}")
    if arch not in VARIANTS:
        raise UnknownVariant(f"unknown arch {arch!r}; did you mean {nearest(arch)!r}?")


def published_preprocess(source: Source, arch: str) -> Preprocess:
    """Raises UnknownVariant for an unknown variant, or one for which the source has published no preprocessing."""
    check_arch(arch)
    if VARIANTS[arch].block == "qarepvgg" and source not in (SOURCES["own"], SOURCES["pytorch"]):
        raise UnknownVariant(
            f"{source.title} has no {arch}: QARepVGG is read from its authors' files, github.com/cxxgtxy/QARepVGG "
            "(--from pytorch), and from checkpoints of training.train (--from own)"
        )
    if VARIANTS[arch].strides != (2, 2, 2, 2, 2):
        raise UnknownVariant(
            f"{arch} is not a network for ImageNet, and only its recipe defines its preprocessing; use "
            "python -m training.export --config RECIPE --pretrained FILE.ckpt --bundle FOLDER"
        )
    return source.preprocess(arch)


def nearest(arch: str) -> str:
    """The variant whose name is most like `arch`."""
    lower = {name.lower(): name for name in VARIANTS}
    return lower[difflib.get_close_matches(arch.lower(), lower, n=1, cutoff=0.0)[0]]


_NORM = r"(gamma|beta|moving_mean|moving_variance)"
_OURS = re.compile(
    rf"classifier\.(weight|bias)|stages\.\d+\.\d+\.((branch_[13]x[13]\.)?(conv(\.convs\.\d+)?\.(weight|bias)|bn\.{_NORM})"
    rf"|branch_1x1\.weight|branch_identity\.{_NORM}|squeeze_excite\.(down|up)\.(weight|bias))"
)


def check_names(weights: Mapping[str, Array], source: Source) -> None:
    """Raises CheckpointError, in one line, for weights whose names are another project's."""
    known = {key: _count_known(weights, each) for key, each in SOURCES.items()}
    most = max(known.values())
    if 2 * _count_known(weights, source) > most:
        return
    if not most:
        raise CheckpointError(f"its names, such as {next(iter(weights), 'none')}, are not those of a RepVGG classifier")
    others = " or ".join(f"--from {key}" for key, count in known.items() if count == most)
    raise CheckpointError(f"its names are not those of {source.title}: give {others}")


def _count_known(names: Iterable[str], source: Source) -> int:
    """How many may be the source's. Some names of fused blocks are everybody's; they say nothing alone."""
    ours = {name for name in names if _OURS.fullmatch(_WRAPPERS.sub("", name))}
    renamed = sum(bool(_OURS.fullmatch(_our_name(name, source.renames))) for name in names if name not in ours)
    return len(ours) + renamed if renamed or not source.renames else 0


def translate(weights: Mapping[str, Array], source: Source) -> tuple[dict[str, Array], list[str]]:
    """-> float32 weights under our names, and the names of other entries.

    Raises CheckpointError if two names mean the same weight.
    """
    other_entries = [name for name in weights if source.state.fullmatch(name)]
    origin: dict[str, str] = {}
    for name in weights.keys() - set(other_entries):
        ours = _our_name(name, source.renames)
        if ours in origin:
            raise CheckpointError(f"{origin[ours]} and {name} both mean {ours}")
        origin[ours] = name
    return _join_groups({ours: weights[name] for ours, name in sorted(origin.items())}), other_entries


@lru_cache(1 << 14)  # a file's names are asked for again for each source
def _our_name(name: str, renames: Renames) -> str:
    ours = _WRAPPERS.sub("", name)
    for pattern, replacement in renames:
        ours = re.sub(pattern, replacement, ours)
    return ours


def _join_groups(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Concatenate kernels that are stored per group: output channels are ordered by group."""
    joined: dict[str, Array] = {}
    parts: dict[str, dict[int, Array]] = {}
    for name, array in weights.items():
        if part := _PART_OF_GROUPS.fullmatch(name):
            parts.setdefault(f"{part[1]}.{part[3]}", {})[int(part[2])] = array
        else:
            joined[name] = array
    for name, groups in parts.items():
        joined[name] = np.concatenate([groups[index] for index in sorted(groups)])
    return {name: np.asarray(array, np.float32) for name, array in joined.items()}
