"""Repositories with random weights under the real names and layouts."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from safetensors.numpy import save

from weights.layout import shapes
from weights.variants import VARIANTS

Arrays = dict[str, np.ndarray[Any, Any]]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
README = b"---\nlicense: mit\ntags: [image-classification]\n---\n# Model card\n"


def random_weights(variant: str, classes: int, *, deploy: bool = False) -> Arrays:
    """Weights under our names, of the scale of trained ones."""
    rng = np.random.default_rng(7)
    found: Arrays = {}
    for name, shape in shapes(VARIANTS[variant], classes, deploy=deploy).items():
        if len(shape) > 1:
            array = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
        elif name.endswith(("gamma", "moving_variance")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.standard_normal(shape) * 0.1
        found[name] = array.astype(np.float32)
    return found


def timm_name(ours: str) -> str:
    name = re.sub(r"^stages\.0\.0\.", "stem.", ours)
    name = re.sub(r"^stages\.(\d+)\.", lambda match: f"stages.{int(match[1]) - 1}.", name)
    for before, after in (
        (".branch_3x3.", ".conv_kxk."),
        (".branch_1x1.", ".conv_1x1."),
        (".branch_identity.", ".identity."),
        (".squeeze_excite.down.", ".attn.fc1."),
        (".squeeze_excite.up.", ".attn.fc2."),
        ("classifier.", "head.fc."),
        (".gamma", ".weight"),
        (".beta", ".bias"),
        (".moving_mean", ".running_mean"),
        (".moving_variance", ".running_var"),
    ):
        name = name.replace(before, after)
    return name


def timm_config(architecture: str = "repvgg_a0", classes: int = 1000, **recipe: Any) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": 1280,
        "global_pool": "avg",
        "pretrained_cfg": {
            "tag": "rvgg_in1k",
            "custom_load": False,
            "input_size": [3, 32, 32],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": MEAN,
            "std": STD,
            "num_classes": classes,
            "pool_size": [7, 7],
            "first_conv": ["stem.conv_kxk.conv", "stem.conv_1x1.conv"],
            "classifier": "head.fc",
            "license": "mit",
            **recipe,
        },
    }


def timm_repository(weights: Arrays, config: dict[str, Any], readme: bytes = README) -> dict[str, bytes]:
    counters = {"stem.conv_kxk.bn.num_batches_tracked": np.asarray(5, np.int64)}
    tensors = {timm_name(name): array for name, array in weights.items()} | counters
    return {"config.json": json.dumps(config).encode(), "model.safetensors": save(tensors), "README.md": readme}
