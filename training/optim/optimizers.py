"""Builds the optimizer of a recipe, and decides which parameters decay.

1. weight decay applies to kernels only: on batch norms and biases it does harm (He et al. 2019, "Bag of Tricks");
2. Muon alone controls the norm of the kernels that it orthogonalises: they do not decay;
3. with `custom_l2` the loss decays the branches' kernels, so the optimizer does not;
4. the optimizer's state has names of its own in a checkpoint.

The names that a recipe may use are in training.config.choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from training.config import TrainConfig
from training.config.choices import OPTIMIZERS
from training.optim.decoupled import AdamW, Lamb, Lion
from training.optim.learning_rate import learning_rates
from training.optim.muon import Muon, MuonAdamW
from weights.variants import VARIANTS

Groups = Sequence[dict[str, Any]]

# Each of these kernels is followed by a batch norm of its own.
_BRANCH_KERNELS = ("branch_3x3.conv.weight", "branch_1x1.conv.weight")
_STEM = "stages.0."

ORTHOGONALISED, DECAYED, PLAIN = range(3)  # kinds of parameters, in the order in which an optimizer gets them


def build_optimizer(network: nn.Cell, config: TrainConfig, steps_per_epoch: int) -> nn.Optimizer:
    """The optimizer of the recipe over the network's trainable parameters. Raises TrainingError for too short a run."""
    build: Callable[[Groups, list[float], TrainConfig], nn.Optimizer] = resolve_name(OPTIMIZERS[config.optimizer])
    rates = learning_rates(config, steps_per_epoch)
    return build(parameter_groups(network, config, rates), rates, config)


def momentum(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return nn.Momentum(groups, rates, config.momentum)


def nesterov(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    """nn.SGD, because nn.Momentum silently ignores `use_nesterov` on CPU (MindSpore 2.10)."""
    return nn.SGD(groups, rates, config.momentum, nesterov=True)


def sgd(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    """Plain gradient descent without momentum."""
    return nn.SGD(groups, rates)


def adamw(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return AdamW(groups, rates, config.beta)


def lamb(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return Lamb(groups, rates, config.beta)


def lion(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return Lion(groups, rates, config.beta)


def muon(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    blocks = {block.name: block.groups for block in VARIANTS[config.arch].blocks()}
    names = [parameter.name for group in groups for parameter in group["params"]]
    kernels = tuple(blocks[".".join(name.split(".")[:3])] for name in names if _is_inner_kernel(name))
    if not config.adamw_lr:
        return Muon(groups, rates, config.momentum, kernels)
    return MuonAdamW(groups, rates, config.momentum, kernels, config.beta, config.adamw_lr / config.base_lr)


def parameter_groups(network: nn.Cell, config: TrainConfig, rates: Sequence[float] = ()) -> Groups:
    """The trainable parameters in groups, none empty: Muon's kernels first, then decayed kernels, then everything else;
    with `backbone_lr` each in two, for the backbone and the classifier, with rates of their own."""
    groups: dict[tuple[int, bool], list[ms.Parameter]] = {}
    for name, parameter in network.parameters_and_names():
        if not parameter.requires_grad:
            continue
        if config.optimizer == "muon" and _is_inner_kernel(name):
            kind = ORTHOGONALISED
        elif parameter.ndim > 1 and not (config.custom_l2 and name.endswith(_BRANCH_KERNELS)):
            kind = DECAYED
        else:
            kind = PLAIN
        slower = config.backbone_lr != 1 and not name.startswith("classifier.")
        groups.setdefault((kind, slower), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": config.weight_decay if kind == DECAYED else 0.0}
        | ({"lr": [config.backbone_lr * rate for rate in rates]} if slower else {})
        for (kind, slower), parameters in sorted(groups.items())
    ]


def _is_inner_kernel(name: str) -> bool:
    """Whether Muon orthogonalises this parameter: not the stem, which is not a hidden layer, nor a kernel whose norm
    matters."""
    return name.endswith(_BRANCH_KERNELS) and not name.startswith(_STEM)


def optimizer_state(optimizer: nn.Optimizer) -> dict[str, ms.Parameter]:
    """The moments, which an optimizer keeps in tuples beside the weights, and the step counter.

    The schedule is not part of it: it follows from the configuration.
    """
    weights = {id(parameter) for parameter in optimizer.parameters}
    tuples = [value for value in vars(optimizer).values() if isinstance(value, ms.ParameterTuple)]
    moments = [parameter for group in tuples for parameter in group if id(parameter) not in weights]
    named = {f"optimizer.{parameter.name}": parameter for parameter in moments}
    return named | {"optimizer.global_step": optimizer.global_step}


def change_rates(optimizer: nn.Optimizer, old: Sequence[float], new: Sequence[float]) -> None:
    """Make the first rates of the schedule `new` instead of `old`, for each group of parameters by its own factor."""
    tables = [one for _, one in optimizer.parameters_and_names() if _is_table(one, len(old))]
    for table in tables:
        rates = table.asnumpy()
        rates[: len(new)] = rates.sum() / sum(old) * np.asarray(new)
        ops.assign(table, ms.Tensor(rates))  # a graph that has run once ignores `set_data` (MindSpore 2.10, CPU)


def _is_table(parameter: ms.Parameter, steps: int) -> bool:
    return str(parameter.name).startswith("learning_rate") and bool(parameter.shape == (steps,))
