"""The CPUs and the memory that this process may use: affinity, and cgroups of versions 1 and 2."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process can keep busy: the minimum of its affinity and its cgroup quota, rounded up; at least 1.

    `os.cpu_count()` knows neither. More threads than this only throttle each other.
    """
    return max(1, min([affinity_cpus(), *(math.ceil(quota) for quota in cpu_quotas(root))]))


def affinity_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_quotas(root: Path = Path("/")) -> Iterator[float]:
    """The CPU quotas, in cores, of this process's cgroups and of their ancestors, versions 1 and 2."""
    for version, folder in _cgroups("cpu", root):
        quota = _quota_v1(folder) if version == 1 else _quota_v2(folder)
        if quota is not None:
            yield quota


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """The memory limits, in bytes, of the same cgroups; in version 1 a huge one means none."""
    for version, folder in _cgroups("memory", root):
        limit = _read(folder / ("memory.limit_in_bytes" if version == 1 else "memory.max")).strip()
        if limit.isdigit():
            yield int(limit)


def _cgroups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Version and folder of the cgroups that may limit `controller` for this process, and of their ancestors."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, mount = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, mount = 1, root / "sys/fs/cgroup" / controllers
        else:
            continue
        # In a container the path may be the host's while the mount shows the container's own group as its root, so that
        # folders of the path may be missing.
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            yield version, folder
            if folder == mount:
                break


def _quota_v2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() else None


def _quota_v1(group: Path) -> float | None:
    quota, period = _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
