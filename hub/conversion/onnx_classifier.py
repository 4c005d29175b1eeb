"""An ONNX file, its preprocessing and its labels -> a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from hub.conversion import graphs_of_others, timm, transformers
from hub.conversion.classifier import Classifier
from hub.conversion.graph import INPUT, OUTPUT
from hub.conversion.running import Tensors, open_onnx
from hub.errors import Unusable, WrongRequest
from models.manifest import Preprocess

# `size=224,...`: the names of timm's command line, and ours.
_WORDS: dict[str, Callable[[str], object]] = {
    "size": int,
    "input_size": int,
    "resize_to": int,
    "resize": str,
    "crop_pct": float,
    "interpolation": str,
    "mean": lambda text: _numbers(text),
    "std": lambda text: _numbers(text),
    "crop_offset_rounding": str,
    "long_side_rounding": str,
    "icc": str,
}


def classifier(
    path: Path,
    spec: Preprocess,
    labels: Sequence[str],
    *,
    variant: str,
    recipe: str,
    say: Callable[[str], None],
    output: str | None = None,
    dataset: str = "as its source says",
) -> Classifier:
    """Raises Unusable."""
    model = graphs_of_others.read(path)
    prepared = graphs_of_others.prepare(model, spec.input_size, len(labels), output)
    for note in prepared.notes:
        say(f"  {path.name}: {note}")
    run = open_onnx(prepared.content, INPUT, OUTPUT)

    def truth(tensors: Tensors) -> Tensors:
        return np.concatenate([run(tensor[None]) for tensor in tensors])

    return Classifier(
        variant=variant,
        parameters=prepared.parameters,
        graph=prepared.content,
        input=INPUT,
        output=OUTPUT,
        preprocess=spec,
        labels=labels,
        truth=truth,
        framework=f"{model.producer_name or 'unknown'} {model.producer_version}".strip() + f", onnx {onnx.__version__}",
        dataset=dataset,
        recipe=recipe,
        precision=prepared.precision,
    )


def preprocessing(what: str) -> Preprocess:
    """A preprocessor_config.json, a timm config.json, a manifest or its `preprocess`, or `size=224,crop_pct=0.875,...`.

    Raises WrongRequest and Unusable.
    """
    if "=" in what and not Path(what).exists():
        return _from_words(what)
    try:
        config = json.loads(Path(what).read_bytes())
    except OSError as error:
        raise WrongRequest(f"--preprocess {what} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{what} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise Unusable(f"{what} is not a JSON object")
    config = config.get("preprocess", config)
    if "image_processor_type" in config or "feature_extractor_type" in config:
        return transformers.preprocessing(config)
    if "pretrained_cfg" in config or isinstance(config.get("input_size"), list):
        return timm.preprocessing(config)
    return timm.build(config)


def _from_words(text: str) -> Preprocess:
    """`size=224,crop_pct=0.875,interpolation=bicubic,mean=0.5:0.5:0.5` or `mean=0.5,0.5,0.5`; missing values are timm's
    defaults."""
    words: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        key, separator, value = part.strip().partition("=")
        if not separator and last:  # a further number of a mean
            words[last] += f":{key}"
            continue
        if key not in _WORDS:
            raise WrongRequest(f"--preprocess: {key!r} is not known; known: {', '.join(_WORDS)}")
        words[key], last = value, key
    try:
        spec = {key: _WORDS[key](value) for key, value in words.items()}
    except ValueError as error:
        raise WrongRequest(f"--preprocess {text}: {error}") from None
    defaults: dict[str, object] = {"interpolation": "bicubic", "mean": timm.IMAGENET_MEAN, "std": timm.IMAGENET_STD}
    if "resize_to" not in spec:
        defaults["crop_pct"] = 0.875
    if "size" in spec:
        spec["input_size"] = spec.pop("size")
    return timm.build({**defaults, "crop_offset_rounding": "round", **spec})


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(":"))
    return numbers * 3 if len(numbers) == 1 else numbers
