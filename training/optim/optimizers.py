"""The table of optimizers, and which parameters they decay.

1. weight decay acts on kernels only: on batch norms and biases it does harm (He et al. 2019, "Bag of Tricks");
2. Muon alone sets the norm of the kernels it turns: nothing decays them;
3. with `custom_l2` the branches' kernels are left to the loss, so that nothing decays twice;
4. the state that a resumed run needs has names of its own in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import nn

from training.config import TrainConfig
from training.optim.decoupled import AdamW, Lamb, Lion
from training.optim.muon import Muon
from training.optim.schedules import learning_rates

Groups = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """How an optimizer is made from groups, rates and configuration; which of its attributes are state."""

    make: Callable[[Groups, list[float], TrainConfig], nn.Optimizer]
    moments: tuple[str, ...]


def _momentum(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return nn.Momentum(groups, rates, config.momentum)


def _nesterov(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    """nn.SGD, because nn.Momentum ignores `use_nesterov` on CPU without a word (MindSpore 2.10)."""
    return nn.SGD(groups, rates, config.momentum, nesterov=True)


def _sgd(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    """Plain gradient descent, no momentum."""
    return nn.SGD(groups, rates)


def _adamw(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return AdamW(groups, rates, config.beta)


def _lamb(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return Lamb(groups, rates, config.beta)


def _lion(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    return Lion(groups, rates, config.beta)


def _muon(groups: Groups, rates: list[float], config: TrainConfig) -> nn.Optimizer:
    turned = sum(_is_turned(parameter.name) for group in groups for parameter in group["params"])
    return Muon(groups, rates, config.momentum, turned)


OPTIMIZERS: dict[str, Kind] = {
    "momentum": Kind(_momentum, ("moments",)),
    "nesterov": Kind(_nesterov, ("accum", "stat")),
    "sgd": Kind(_sgd, ("accum", "stat")),
    "adamw": Kind(_adamw, ("moment1", "moment2")),
    "lamb": Kind(_lamb, ("moment1", "moment2")),
    "lion": Kind(_lion, ("moment1",)),
    "muon": Kind(_muon, ("moments",)),
}

_BRANCH_KERNELS = ("branch_3x3.conv.weight", "branch_1x1.conv.weight")  # a batch norm of their own follows
_STEM = "stages.0."


def optimizer(network: nn.Cell, config: TrainConfig, steps_per_epoch: int) -> nn.Optimizer:
    """The optimizer of the recipe over the network's trainable parameters. Raises TrainingError for too short a run."""
    return OPTIMIZERS[config.optimizer].make(groups(network, config), learning_rates(config, steps_per_epoch), config)


def groups(network: nn.Cell, config: TrainConfig) -> Groups:
    """The trainable parameters, parted into Muon's, decayed kernels and the rest, in this order; no group is empty."""
    turned: list[ms.Parameter] = []
    decayed: list[ms.Parameter] = []
    plain: list[ms.Parameter] = []
    for name, parameter in network.parameters_and_names():
        if not parameter.requires_grad:
            continue
        if config.optimizer == "muon" and _is_turned(name):
            turned.append(parameter)
        elif parameter.ndim > 1 and not (config.custom_l2 and name.endswith(_BRANCH_KERNELS)):
            decayed.append(parameter)
        else:
            plain.append(parameter)
    parted = ((turned, 0.0), (decayed, config.weight_decay), (plain, 0.0))
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in parted if parameters]


def _is_turned(name: str) -> bool:
    """Whether Muon turns this parameter: not the stem, which is no hidden layer, nor a kernel whose norm counts."""
    return name.endswith(_BRANCH_KERNELS) and not name.startswith(_STEM)


def state(updates: nn.Optimizer, config: TrainConfig) -> dict[str, ms.Parameter]:
    """The running averages and the step counter; the schedule itself follows from the configuration."""
    moments = [parameter for name in OPTIMIZERS[config.optimizer].moments for parameter in getattr(updates, name)]
    named = {f"optimizer.{parameter.name}": parameter for parameter in moments}
    return named | {"optimizer.global_step": updates.global_step}
