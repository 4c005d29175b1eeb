"""The program of each process in test_ranks.py: python two_ranks.py FOLDER, with cases.json and batches.npz in FOLDER.

The test also calls `results` for its single process. Each process writes its results to FOLDER/<rank>.npz.
"""

import json
import signal
import sys
from pathlib import Path

import numpy as np

WEIGHT = np.random.default_rng(0).normal(0, 1, (3, 5)).astype(np.float32)


def network_of(kind):
    import mindspore as ms
    from mindspore import nn

    if kind == "dense":
        return nn.Dense(5, 3, has_bias=False, weight_init=ms.Tensor(WEIGHT))
    ms.set_seed(3)
    return nn.SequentialCell(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dense(5, 3)
    )


def results(name, kind, keys, batches, process):
    """-> {"<name>/<what>": array}: loss, right answers and first weights by step; updates, overflows, statistics."""
    import mindspore as ms

    from training.config import build
    from training.network.ema import Ema
    from training.optim.optimizers import build_optimizer
    from training.run.distributed import ranks
    from training.run.step import train_step

    common = {"lr_scheduler": "constant_lr", "base_lr": 0.5, "weight_decay": 0.01, "epochs": 8}
    config = build(common | keys, source="test")
    network, average = network_of(kind), network_of(kind)
    ranks.broadcast(network.get_parameters(), process)
    optimizer = build_optimizer(network, config, 1)
    ema = Ema(network, average, config.ema_decay) if config.with_ema else None
    step = train_step(network.set_train(), optimizer, config, ema, process)
    found = {what: [] for what in ("loss", "right", "weights")}
    for inputs, labels in batches:
        loss, right = step(ms.Tensor(inputs), ms.Tensor(labels))
        found["loss"].append(float(loss.asnumpy()))
        found["right"].append(int(right.asnumpy()))
        found["weights"].append(next(network.get_parameters()).asnumpy().copy())
    ranks.average([*network.get_parameters(), *average.get_parameters()], process)
    found["updates"] = optimizer.global_step.asnumpy()
    found["overflows"] = step.loss_scale.overflows.asnumpy() if step.loss_scale else 0
    found |= {f"last.{parameter.name}": parameter.asnumpy() for parameter in network.get_parameters()}
    found |= {f"ema.{parameter.name}": parameter.asnumpy() for parameter in average.get_parameters() if ema}
    return {f"{name}/{what}": np.array(value) for what, value in found.items()}


def collectives(process):
    """The effect on parameters that differ by rank, before and after a graph has used them."""
    import mindspore as ms
    from mindspore import Tensor

    from training.run.distributed import ranks
    from training.run.stopping import StopRequest

    counted = ms.Parameter(Tensor(7 + process.rank, ms.int32), name="counted", requires_grad=False)
    weight = ms.Parameter(Tensor([1.0 + process.rank, 2.0], ms.float32), name="weight")
    found = {
        "total": ranks.total([1 + process.rank, 10], process),
        "first": ranks.from_rank_0(5 + process.rank, process),
    }
    stop = StopRequest()
    found["agreed"] = [ranks.agree(stop, due, process) for due in (False, process.is_main)]
    stop.requested = signal.SIGINT if process.rank == 1 else None
    found |= {"agreed/stop": ranks.agree(stop, False, process), "agreed/signal": stop.requested}

    @ms.jit
    def add(amount):
        return ms.ops.assign_add(weight, amount)

    ranks.broadcast([counted, weight], process)
    found |= {"shared/counted": counted.asnumpy(), "shared/weight": weight.asnumpy().copy()}
    add(Tensor([float(process.rank), 0.0], ms.float32))
    ranks.average([counted, weight], process)
    found |= {"averaged/counted": counted.asnumpy(), "averaged/weight": weight.asnumpy().copy()}
    add(Tensor([1.0, 1.0], ms.float32))
    return found | {"used/weight": weight.asnumpy()}


def main(folder):
    from training.run.distributed import device

    process = device.init_process("CPU", 0)
    batches, found = np.load(folder / "batches.npz"), collectives(process)
    for name, (kind, keys) in json.loads((folder / "cases.json").read_text()).items():
        mine = zip(batches[f"{name}/inputs"][:, process.rank], batches[f"{name}/labels"][:, process.rank], strict=True)
        found |= results(name, kind, keys, mine, process)
    np.savez(folder / f"{process.rank}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
