"""Checkpoints: written whole or not at all, loaded strictly.

1. a kill at any moment leaves the last whole checkpoint in place (temporary file, then rename);
2. every missing and every unused parameter is named, and nothing is loaded unless all fits;
3. a network for other classes starts from a checkpoint only where that is asked for, and what is new in it is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import mindspore as ms
import numpy as np
from numpy.typing import NDArray

from training.errors import CheckpointError
from training.network import fuse, repvgg
from training.network.ema import PREFIX as EMA
from training.network.variants import VARIANTS, Variant

T = TypeVar("T")
Weights = dict[str, NDArray[Any]]

CLASSIFIER = "classifier."


def save(path: Path, parameters: Mapping[str, ms.Parameter], progress: Mapping[str, int | float | str]) -> None:
    """Write the named parameters and what is in `progress`. Raises CheckpointError if the disk refuses.

    MindSpore keeps a float of `progress` as float32.
    """
    entries = [{"name": name, "data": parameter} for name, parameter in parameters.items()]
    draft = path.with_name(f".{path.stem}.ckpt")  # one name, so that what a kill left is written over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            ms.save_checkpoint(entries, str(draft), append_dict=dict(progress))
            draft.chmod(0o644)  # MindSpore leaves it read-only
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
            draft.with_suffix(".tmp").unlink(missing_ok=True)  # MindSpore's own draft of the draft
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be written: {str(error).strip().splitlines()[0]}") from error


def read(path: Path) -> Weights:
    """Name -> array of everything in a checkpoint, text as an array of one. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        found = ms.load_checkpoint(str(path))
        return {name: np.array(value) if isinstance(value, str) else value.asnumpy() for name, value in found.items()}
    except (ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path} is no readable checkpoint: {str(error).strip().splitlines()[0]}") from error


def restore(parameters: Mapping[str, ms.Parameter], saved: Weights, *, source: Path) -> None:
    """Put `saved` into `parameters`; both must have the same names and shapes. Raises CheckpointError."""
    if problems := _misfits(parameters, saved):
        raise CheckpointError(f"{source} is of another network or configuration:\n  " + "\n  ".join(problems))
    for name, parameter in parameters.items():
        parameter.set_data(ms.Tensor(saved[name], parameter.dtype))


def _misfits(parameters: Mapping[str, ms.Parameter], saved: Weights) -> list[str]:
    problems = [f"missing: {name}" for name in sorted(set(parameters) - set(saved))]
    problems += [f"unused: {name}" for name in sorted(set(saved) - set(parameters))]
    return problems + [
        f"{name}: shape {saved[name].shape}, expected {tuple(parameters[name].shape)}"
        for name in sorted(set(parameters) & set(saved))
        if saved[name].shape != tuple(parameters[name].shape)
    ]


def start_from(
    parameters: Mapping[str, ms.Parameter], saved: Weights, *, reset_classifier: bool, source: Path
) -> list[str]:
    """Put the weights `saved` into a network that is to be trained -> the names of the parameters that stay as they
    are: with `reset_classifier` the classifier's, else none. Raises CheckpointError."""
    if saved and not is_train_form(saved):
        raise CheckpointError(
            f"{source} is fused and has no branches to train: give a checkpoint of training.train "
            "or of training.convert --checkpoint"
        )
    if reset_classifier:
        restore(_backbone(parameters), _backbone(saved), source=source)
        return [name for name in parameters if name.startswith(CLASSIFIER)]
    problems = _misfits(parameters, saved)
    if problems and not _misfits(_backbone(parameters), _backbone(saved)):
        raise CheckpointError(
            f"{source} fits but for its classifier ({'; '.join(problems)}): --reset_classifier True takes all other "
            "weights and starts with a new classifier"
        )
    restore(parameters, saved, source=source)
    return []


def _backbone(entries: Mapping[str, T]) -> dict[str, T]:
    return {name: entry for name, entry in entries.items() if not name.startswith(CLASSIFIER)}


def network_weights(saved: Weights) -> Weights:
    """The network's weights in a checkpoint, the averaged ones where the run kept such; no state, no progress."""
    averaged = {name.removeprefix(EMA): array for name, array in saved.items() if name.startswith(EMA)}
    return averaged or {name: array for name, array in saved.items() if name.startswith(("stages.", CLASSIFIER))}


def is_train_form(weights: Weights) -> bool:
    return any(".branch_3x3." in name for name in weights)


def load_network(path: Path, arch: str, num_classes: int, *, deploy: bool) -> repvgg.RepVGG:
    """A checkpoint of either form -> network, as `network_of`. Raises CheckpointError."""
    return network_of(network_weights(read(path)), VARIANTS[arch], num_classes, deploy=deploy, source=path)


def network_of(weights: Weights, variant: Variant, num_classes: int, *, deploy: bool, source: Path) -> repvgg.RepVGG:
    """Weights of either form -> network; `deploy` fuses a train form. Raises CheckpointError.

    Weights of the deploy form have no branches any more and always give a deploy network.
    """
    train_form = is_train_form(weights)
    if train_form and deploy:
        restore(repvgg.weights(repvgg.RepVGG(variant, num_classes)), weights, source=source)  # names what does not fit
        weights = fuse.fuse_weights(weights, variant, repvgg.BATCH_NORM_EPS)
    network = repvgg.RepVGG(variant, num_classes, deploy=deploy or not train_form)
    restore(repvgg.weights(network), weights, source=source)
    return network.set_train(False)  # type: ignore[no-any-return]
