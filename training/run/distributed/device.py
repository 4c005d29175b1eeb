"""Selects the device, and connects the processes of a distributed run.

1. without the environment variables of a launcher, a run is one process;
2. variables that are incomplete or contradict each other are an error that names them, before any process waits.

Two launchers are supported: msrun (MindSpore's dynamic cluster), which assigns a rank in `init`, and the Ascend rank
table, which comes with a rank in the environment of each process. No other module reads these variables.
"""

from __future__ import annotations

import gc
import json
import os
import sys
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
class Process:
    """One process of a run of `size` processes, 0 <= rank < size; `description` names its framework and device."""

    rank: int = 0
    size: int = 1
    description: str = ""

    @property
    def is_main(self) -> bool:
        """Only the main process writes files and prints."""
        return self.rank == 0

    @property
    def hides_progress(self) -> bool | None:
        """The `disable` argument of tqdm: None shows a progress bar on a terminal only."""
        return None if self.is_main else True

    @property
    def image_shard(self) -> dict[str, int]:
        """Its share of the images, as arguments for training.data.pipeline."""
        return {"num_shards": self.size, "shard_id": self.rank}


SINGLE_PROCESS = Process()


def limit_onednn() -> None:
    """Keep oneDNN below AVX-512, where its 3x3 convolution of plain NCHW tensors is a slow reference loop.

    Measured on AMD Zen 5 with MindSpore 2.10: 1.84 s instead of 0.018 s for one layer. Only CPU kernels read the
    variable, so it is set for every target. A value set by the user is kept.
    """
    os.environ.setdefault(ONEDNN_ISA, "AVX2")


def prepare(target: str, device_id: int) -> str:
    """Select MindSpore's device -> its description. Raises DeviceError if the framework or the device is missing."""
    if target == "CPU":
        # Without this, the thread that starts a step spins until it is done (MindSpore 2.10): three threads compete for
        # two cores, and a step takes 1.6 to 1.9 times as long. On an accelerator the host should run ahead of the
        # device, so the default stays.
        os.environ.setdefault(BLOCKING, "1")
    imported = "mindspore" in sys.modules
    try:
        import mindspore as ms
    except ImportError as error:
        raise DeviceError(f"cannot import MindSpore ({error}); install it: pip install 'repvgg[train]'") from error
    if not imported:
        # MindSpore collects garbage before each compilation, of which a run that starts from a bundle has a hundred.
        # Without the 160,000 objects of its modules, that takes about 10 ms instead of 60.
        gc.freeze()
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        ms.set_device(target, None if target == "CPU" else device_id)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DeviceError(f"device_target {target} is not available on this machine: {first_line}") from error
    if target == "CPU":
        return f"MindSpore {ms.__version__} on CPU, oneDNN up to {os.environ[ONEDNN_ISA]} ({ONEDNN_ISA})"
    return f"MindSpore {ms.__version__} on {target} {device_id}"


def init_process(target: str, device_id: int, environment: Mapping[str, str] = os.environ) -> Process:
    """Select the device and, if a launcher started this process as one of several, connect to the others.

    A launcher names the device of each process in DEVICE_ID. The scheduler process of msrun exits in here. Raises
    ConfigError for inconsistent variables, and DeviceError.
    """
    started_by = find_launcher(environment)
    if started_by is None:
        return Process(description=prepare(target, device_id))
    if started_by == "rank table" and target != "Ascend":
        raise DeviceError(f"RANK_TABLE_FILE is for device_target Ascend, not {target}: start the run with msrun")
    description = prepare(target, _number(environment, "DEVICE_ID") if environment.get("DEVICE_ID") else device_id)
    import mindspore as ms
    from mindspore import communication

    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    try:
        communication.init()  # HCCL on Ascend, NCCL on GPU, MCCL on CPU
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DeviceError(f"the processes of the run cannot connect to each other: {first_line}") from error
    rank, size = communication.get_rank(), communication.get_group_size()
    return Process(rank, size, f"{description}; {size} processes")


def find_launcher(environment: Mapping[str, str]) -> Literal["msrun", "rank table"] | None:
    """What started this process as one of several, if anything. Raises ConfigError for inconsistent variables."""
    if environment.get("MS_ROLE"):
        if missing := [name for name in MSRUN if not environment.get(name)]:
            raise ConfigError(f"MS_ROLE is set without {', '.join(missing)}: start the run with msrun")
        return "msrun"
    given = [name for name in RANK_TABLE if environment.get(name)]
    if not given or given == ["DEVICE_ID"]:
        return None
    alone = environment.get("RANK_SIZE") == "1"
    needed = ("RANK_SIZE", "RANK_ID") if alone else RANK_TABLE
    if missing := [name for name in needed if name not in given]:
        raise ConfigError(
            f"{', '.join(given)} set without {', '.join(missing)}: set {', '.join(RANK_TABLE)}, or use msrun"
        )
    if (rank := _number(environment, "RANK_ID")) >= (size := _number(environment, "RANK_SIZE")):
        raise ConfigError(f"RANK_ID={rank} must be less than RANK_SIZE={size}")
    if alone:
        return None
    _check_rank_table(Path(environment["RANK_TABLE_FILE"]), size)
    return "rank table"


def _number(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdecimal():
        raise ConfigError(f"{name} must be a non-negative integer, not {environment[name]!r}")
    return int(environment[name])


def _check_rank_table(path: Path, size: int) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except OSError as error:
        raise ConfigError(f"RANK_TABLE_FILE={path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"RANK_TABLE_FILE={path} is not valid JSON: {error}") from error
    devices = text.count('"device_id"')  # one per device, in server_list and in ModelArts' group_list alike
    if devices < size:
        raise ConfigError(f"RANK_TABLE_FILE={path} lists {devices} devices, but RANK_SIZE is {size}")
