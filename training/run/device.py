"""Where a run takes place: sets the device, joins the other processes of the run, and says so.

1. without a launcher's variables a run is one process;
2. variables that are incomplete or contradict each other are an error that names them, before anything waits.

Two launchers are known: msrun (MindSpore's dynamic cluster), which tells a process its rank after `init`, and the
Ascend rank table, where the environment of each process says it. No other module reads these variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.errors import ConfigError, DeviceError

ONEDNN_ISA = "DNNL_MAX_CPU_ISA"
BLOCKING = "MS_DEV_HOST_BLOCKING_RUN"
MSRUN = ("MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT")
RANK_TABLE = ("RANK_TABLE_FILE", "RANK_SIZE", "RANK_ID", "DEVICE_ID")


@dataclass(frozen=True)
class Place:
    """One process of a run, 0 <= rank < size; `line` says where it runs."""

    rank: int = 0
    size: int = 1
    line: str = ""

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.rank == 0

    @property
    def shard(self) -> dict[str, int]:
        """Its part of the images, as training.data.pipeline takes it."""
        return {"num_shards": self.size, "shard_id": self.rank}


ALONE = Place()


def limit_onednn() -> None:
    """Keep oneDNN from AVX-512: there its 3x3 convolution on plain NCHW tensors is a reference loop.

    Measured on AMD Zen 5 with MindSpore 2.10: 1.84 s instead of 0.018 s for one layer. It matters to CPU
    kernels only, so it is done for every target; a value that the user has set is kept.
    """
    os.environ.setdefault(ONEDNN_ISA, "AVX2")


def prepare(target: str, device_id: int) -> str:
    """Set MindSpore's device and say so in a line. Raises DeviceError where framework or device is missing."""
    if target == "CPU":
        # Else MindSpore 2.10's caller of a step spins until it is done: three threads for two cores, and a step takes
        # 1.6 to 1.9 times as long. On an accelerator the host is to run ahead of the device, so there it stays.
        os.environ.setdefault(BLOCKING, "1")
    try:
        import mindspore as ms
    except ImportError as error:
        raise DeviceError(f"MindSpore cannot be imported ({error}); install it: pip install 'repvgg[train]'") from error
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        ms.set_device(target, None if target == "CPU" else device_id)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DeviceError(f"device_target {target} is not available here: {first_line}") from error
    if target == "CPU":
        return f"MindSpore {ms.__version__} on CPU, oneDNN up to {os.environ[ONEDNN_ISA]} ({ONEDNN_ISA})"
    return f"MindSpore {ms.__version__} on {target} {device_id}"


def join(target: str, device_id: int, environment: Mapping[str, str] = os.environ) -> Place:
    """`prepare`, and wait for the other processes if a launcher has started some; they run on DEVICE_ID each.

    Raises ConfigError for wrong variables, DeviceError. A process that msrun started as scheduler ends in here.
    """
    started_by = launcher(environment)
    if started_by is None:
        return Place(line=prepare(target, device_id))
    if started_by == "rank table" and target != "Ascend":
        raise DeviceError(f"RANK_TABLE_FILE is for device_target Ascend, not {target}: start the run by msrun")
    line = prepare(target, _number(environment, "DEVICE_ID") if environment.get("DEVICE_ID") else device_id)
    import mindspore as ms
    from mindspore import communication

    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    try:
        communication.init()  # HCCL on Ascend, NCCL on GPU, MCCL on CPU
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DeviceError(f"the processes of the run do not find each other: {first_line}") from error
    rank, size = communication.get_rank(), communication.get_group_size()
    return Place(rank, size, f"{line}; {size} processes")


def launcher(environment: Mapping[str, str]) -> Literal["msrun", "rank table"] | None:
    """What has started this process as one of several. Raises ConfigError for variables that make no sense."""
    if environment.get("MS_ROLE"):
        if missing := [name for name in MSRUN if not environment.get(name)]:
            raise ConfigError(f"MS_ROLE without {', '.join(missing)}: start the run by msrun")
        return "msrun"
    given = [name for name in RANK_TABLE if environment.get(name)]
    if not given or given == ["DEVICE_ID"]:
        return None
    alone = environment.get("RANK_SIZE") == "1"
    needed = ("RANK_SIZE", "RANK_ID") if alone else RANK_TABLE
    if missing := [name for name in needed if name not in given]:
        raise ConfigError(f"{', '.join(given)} without {', '.join(missing)}: set {', '.join(RANK_TABLE)}, or use msrun")
    if (rank := _number(environment, "RANK_ID")) >= (size := _number(environment, "RANK_SIZE")):
        raise ConfigError(f"RANK_ID={rank} is not below RANK_SIZE={size}")
    if alone:
        return None
    _check_rank_table(Path(environment["RANK_TABLE_FILE"]), size)
    return "rank table"


def _number(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdecimal():
        raise ConfigError(f"{name} must be a whole number, not {environment[name]!r}")
    return int(environment[name])


def _check_rank_table(path: Path, size: int) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except OSError as error:
        raise ConfigError(f"RANK_TABLE_FILE={path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"RANK_TABLE_FILE={path} is not valid JSON: {error}") from error
    devices = text.count('"device_id"')  # once a device, in server_list as in ModelArts' group_list
    if devices < size:
        raise ConfigError(f"RANK_TABLE_FILE={path} lists {devices} devices, RANK_SIZE is {size}")
