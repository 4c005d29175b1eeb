"""What each process of test_ranks.py does: python two_ranks.py FOLDER, with FOLDER/cases.json and FOLDER/batches.npz.

`results` is also what the test calls for its one process. A process writes what it found to FOLDER/<rank>.npz.
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


def results(name, kind, keys, batches, place):
    """-> {"<name>/<what>": array}: loss, right answers and first weights by step; updates, overflows, statistics."""
    import mindspore as ms

    from training.config import build
    from training.network.ema import Ema
    from training.optim.optimizers import optimizer
    from training.run import ranks
    from training.run.step import train_step

    common = {"lr_scheduler": "constant_lr", "base_lr": 0.5, "weight_decay": 0.01, "epochs": 8}
    config = build(common | keys, source="test")
    network, average = network_of(kind), network_of(kind)
    ranks.share(network.get_parameters(), place)
    updates = optimizer(network, config, 1)
    ema = Ema(network, average, config.ema_decay) if config.with_ema else None
    step = train_step(network.set_train(), updates, config, ema, place)
    found = {what: [] for what in ("loss", "right", "weights")}
    for inputs, labels in batches:
        loss, right = step(ms.Tensor(inputs), ms.Tensor(labels))
        found["loss"].append(float(loss.asnumpy()))
        found["right"].append(int(right.asnumpy()))
        found["weights"].append(next(network.get_parameters()).asnumpy().copy())
    ranks.average([*network.get_parameters(), *average.get_parameters()], place)
    found["updates"] = updates.global_step.asnumpy()
    found["overflows"] = step.loss_scale.overflows.asnumpy() if step.loss_scale else 0
    found |= {f"last.{parameter.name}": parameter.asnumpy() for parameter in network.get_parameters()}
    found |= {f"ema.{parameter.name}": parameter.asnumpy() for parameter in average.get_parameters() if ema}
    return {f"{name}/{what}": np.array(value) for what, value in found.items()}


def collectives(place):
    """What becomes of parameters that differ by rank, before and after a graph has used them."""
    import mindspore as ms
    from mindspore import Tensor

    from training.run import ranks
    from training.run.stopping import StopRequest

    counted = ms.Parameter(Tensor(7 + place.rank, ms.int32), name="counted", requires_grad=False)
    weight = ms.Parameter(Tensor([1.0 + place.rank, 2.0], ms.float32), name="weight")
    found = {"total": ranks.total([1 + place.rank, 10], place), "first": ranks.first(5 + place.rank, place)}
    stop = StopRequest()
    found["agreed"] = [ranks.agreed(stop, due, place) for due in (False, place.leads)]
    stop.requested = signal.SIGINT if place.rank == 1 else None
    found |= {"agreed/stop": ranks.agreed(stop, False, place), "agreed/signal": stop.requested}

    @ms.jit
    def add(amount):
        return ms.ops.assign_add(weight, amount)

    ranks.share([counted, weight], place)
    found |= {"shared/counted": counted.asnumpy(), "shared/weight": weight.asnumpy().copy()}
    add(Tensor([float(place.rank), 0.0], ms.float32))
    ranks.average([counted, weight], place)
    found |= {"averaged/counted": counted.asnumpy(), "averaged/weight": weight.asnumpy().copy()}
    add(Tensor([1.0, 1.0], ms.float32))
    return found | {"used/weight": weight.asnumpy()}


def main(folder):
    from training.run import device

    place = device.join("CPU", 0)
    batches, found = np.load(folder / "batches.npz"), collectives(place)
    for name, (kind, keys) in json.loads((folder / "cases.json").read_text()).items():
        mine = zip(batches[f"{name}/inputs"][:, place.rank], batches[f"{name}/labels"][:, place.rank], strict=True)
        found |= results(name, kind, keys, mine, place)
    np.savez(folder / f"{place.rank}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
