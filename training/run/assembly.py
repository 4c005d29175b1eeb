"""Builds a run: the network and its averaged copy, the optimizer, the training step and the learning rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mindspore as ms
from mindspore import nn

from training.config import TrainConfig
from training.network import repvgg
from training.network.ema import PREFIX, Ema
from training.optim.learning_rate import learning_rates
from training.optim.optimizers import build_optimizer, change_rates, optimizer_state
from training.run.checkpoints.about import About
from training.run.distributed.device import SINGLE_PROCESS, Process
from training.run.step import TrainStep, train_step


@dataclass(frozen=True)
class Run:
    """Everything that takes part in training.

    `average` is the network of averaged weights, or None. An epoch has `steps` batches; `rates` holds the learning rate
    of each update of the weights. `about` is what its checkpoints say about it; `skipped` has a line for each broken
    image that it leaves out.
    """

    config: TrainConfig
    network: nn.Cell
    average: nn.Cell | None
    ema: Ema | None
    optimizer: nn.Optimizer
    step: TrainStep
    steps: int
    rates: list[float]
    process: Process
    about: About | None = None
    skipped: tuple[str, ...] = ()

    @property
    def result(self) -> nn.Cell:
        """The network that is evaluated and saved as the best."""
        return self.network if self.average is None else self.average

    @property
    def parameters(self) -> dict[str, ms.Parameter]:
        """Everything that must be restored to resume the run exactly."""
        averages = repvgg.weights(self.average) if self.average else {}
        everything = repvgg.weights(self.network) | optimizer_state(self.optimizer) | self.step.state
        return everything | {PREFIX + name: parameter for name, parameter in averages.items()}

    @property
    def updates_done(self) -> int:
        return int(self.optimizer.global_step.asnumpy()[0])

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return self.rates[min(self.updates_done, len(self.rates) - 1)]

    @property
    def images_per_step(self) -> int:
        """Summed over all ranks."""
        return self.config.batch_size * self.process.size

    @property
    def overflows(self) -> int:
        return int(self.step.loss_scale.overflows.asnumpy()) if self.step.loss_scale else 0


def assemble(
    config: TrainConfig,
    steps: int,
    process: Process = SINGLE_PROCESS,
    about: About | None = None,
    class_weights: Sequence[float] | None = None,
    teacher: nn.Cell | None = None,
    prepare: Callable[[repvgg.RepVGG], None] = lambda _network: None,
) -> Run:
    """Build a run of `steps` batches per epoch with fresh weights. `prepare` may choose which of the network's
    parameters learn. Raises TrainingError if the run is too short."""
    ms.set_seed(config.seed)
    form = {"deploy": config.fused, "normed": config.kernel_norms}
    network = repvgg.build(config.arch, config.classes, **form)
    prepare(network)
    optimizer = build_optimizer(network, config, steps)
    average = ema = None
    if config.with_ema:
        average = repvgg.build(config.arch, config.classes, **form).set_train(False)
        ema = Ema(network, average, config.ema_decay, forgets_start=config.ema_forgets_start)
    step = train_step(network, optimizer, config, ema, process, class_weights, teacher)
    return Run(config, network, average, ema, optimizer, step, steps, learning_rates(config, steps), process, about)


def shortened(run: Run, epochs: int) -> Run:
    """The same run with fewer epochs, if `epochs` is not 0, and the schedule of a run of that length from the next step
    on."""
    config = run.config
    if not 0 < epochs < config.epochs:
        return run
    warmup = min(config.warmup_length, epochs)
    lengths = {
        "epochs": epochs,
        "warmup_length": warmup,
        "cooldown_length": min(config.cooldown_length, epochs - warmup),
    }
    config = config.model_copy(update=lengths)
    rates = learning_rates(config, run.steps)
    change_rates(run.optimizer, run.rates, rates)
    return replace(run, config=config, rates=rates + run.rates[len(rates) :])
