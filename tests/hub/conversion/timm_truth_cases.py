"""Networks and recipes of timm: each kind of block, and each way to resize and crop."""

from __future__ import annotations

from typing import Any

# Small inputs, where the network is not what is compared.
_SMALL = {"architecture": "repvgg_a0", "num_classes": 20}

CASES: dict[str, dict[str, Any]] = {
    "a0": {"architecture": "repvgg_a0", "num_classes": 1000},
    "a1": {"architecture": "repvgg_a1", "num_classes": 20, "input_size": [3, 64, 64]},
    "b1g4": {"architecture": "repvgg_b1g4", "num_classes": 20, "input_size": [3, 64, 64]},
    "d2se": {"architecture": "repvgg_d2se", "num_classes": 20, "input_size": [3, 64, 64]},
    "bicubic": {**_SMALL, "interpolation": "bicubic", "crop_pct": 0.95, "input_size": [3, 160, 160]},
    "whole": {**_SMALL, "interpolation": "bilinear", "crop_pct": 1.0, "input_size": [3, 96, 96]},
    "odd": {**_SMALL, "interpolation": "lanczos", "crop_pct": 0.9, "input_size": [3, 101, 101]},
    "squash": {**_SMALL, "crop_mode": "squash", "crop_pct": 0.875, "input_size": [3, 128, 128]},
    "test-size": {**_SMALL, "input_size": [3, 96, 96], "test_input_size": [3, 128, 128], "test_crop_pct": 0.95},
    "half": {**_SMALL, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [3, 64, 64]},
}
