"""Checkpoints: written atomically, loaded strictly.

1. a kill at any moment leaves the last complete checkpoint in place (temporary file, then rename);
2. an error names every missing and every unused parameter, and nothing is loaded unless everything fits;
3. a network for other classes starts from a checkpoint only if the recipe says so, and its new parameters are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import mindspore as ms
import numpy as np
from numpy.typing import NDArray

from training.errors import CheckpointError
from training.network import repvgg
from training.network.ema import PREFIX as EMA
from weights import fuse
from weights.variants import VARIANTS, Variant

T = TypeVar("T")
Weights = dict[str, NDArray[Any]]

CLASSIFIER = "classifier."


def save(path: Path, parameters: Mapping[str, ms.Parameter], progress: Mapping[str, int | float | str]) -> None:
    """Write the parameters and the entries of `progress`, in which MindSpore stores floats as float32.

    Raises CheckpointError if the file cannot be written.
    """
    entries = [{"name": name, "data": parameter} for name, parameter in parameters.items()]
    draft = path.with_name(f".{path.stem}.ckpt")  # always the same name, so that a draft left by a kill is overwritten
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            ms.save_checkpoint(entries, str(draft), append_dict=dict(progress))
            draft.chmod(0o644)  # MindSpore leaves it read-only
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
            draft.with_suffix(".tmp").unlink(missing_ok=True)  # MindSpore's own temporary file
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be written: {str(error).strip().splitlines()[0]}") from error


def read(path: Path) -> Weights:
    """Everything in a checkpoint, name -> array; text becomes an array of one string. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        found = ms.load_checkpoint(str(path))
        return {name: np.array(value) if isinstance(value, str) else value.asnumpy() for name, value in found.items()}
    except (ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {str(error).strip().splitlines()[0]}") from error


def restore(parameters: Mapping[str, ms.Parameter], saved: Weights, *, source: Path) -> None:
    """Load `saved` into `parameters`; both must have the same names and shapes. Raises CheckpointError."""
    if problems := _mismatches(parameters, saved):
        raise CheckpointError(f"{source} belongs to another network or configuration:\n  " + "\n  ".join(problems))
    for name, parameter in parameters.items():
        parameter.set_data(ms.Tensor(saved[name], parameter.dtype))


def _mismatches(parameters: Mapping[str, ms.Parameter], saved: Weights) -> list[str]:
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
    """Load the weights `saved` into a network to train -> the names of the parameters that keep their fresh values.

    With `reset_classifier` these are the classifier's, otherwise there are none. Raises CheckpointError.
    """
    if saved and not is_train_form(saved):
        raise CheckpointError(
            f"{source} is fused and has no branches to train: use a checkpoint from training.train "
            "or training.convert --checkpoint, or a bundle"
        )
    if reset_classifier:
        restore(backbone(parameters), backbone(saved), source=source)
        return [name for name in parameters if name.startswith(CLASSIFIER)]
    problems = _mismatches(parameters, saved)
    if problems and not _mismatches(backbone(parameters), backbone(saved)):
        raise CheckpointError(
            f"{source} fits except for its classifier ({'; '.join(problems)}): --reset_classifier True loads all other "
            "weights and starts with a new classifier"
        )
    restore(parameters, saved, source=source)
    return []


def backbone(entries: Mapping[str, T]) -> dict[str, T]:
    return {name: entry for name, entry in entries.items() if not name.startswith(CLASSIFIER)}


def network_weights(saved: Weights) -> Weights:
    """The network's weights in a checkpoint, without any training state: the averaged weights if there are any; those
    of a run with `kernel_norms` in the deploy form."""
    averaged = {name.removeprefix(EMA): array for name, array in saved.items() if name.startswith(EMA)}
    own = {name: array for name, array in saved.items() if name.startswith(("stages.", CLASSIFIER))}
    return fuse.fold_norms(averaged or own, repvgg.BATCH_NORM_EPS)


def is_train_form(weights: Weights) -> bool:
    return any(".branch_3x3." in name for name in weights)


def load_network(path: Path, arch: str, num_classes: int, *, deploy: bool) -> repvgg.RepVGG:
    """Read a checkpoint of either form and build its network, as `build_network` does. Raises CheckpointError."""
    return build_network(network_weights(read(path)), VARIANTS[arch], num_classes, deploy=deploy, source=path)


def build_network(weights: Weights, variant: Variant, num_classes: int, *, deploy: bool, source: Path) -> repvgg.RepVGG:
    """Build the network of weights of either form; `deploy` fuses a train form. Raises CheckpointError.

    Weights of the deploy form have no branches left, so they always give a deploy network.
    """
    train_form = is_train_form(weights)
    if train_form and deploy:
        restore(
            repvgg.weights(repvgg.RepVGG(variant, num_classes)), weights, source=source
        )  # raises if they do not fit
        weights = fuse.fuse_weights(weights, variant, repvgg.BATCH_NORM_EPS)
    network = repvgg.RepVGG(variant, num_classes, deploy=deploy or not train_form)
    restore(repvgg.weights(network), weights, source=source)
    return network.set_train(False)  # type: ignore[no-any-return]
