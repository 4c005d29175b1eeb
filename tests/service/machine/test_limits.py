from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.machine.limits import cpu_quotas, usable_cpus

WriteRoot = Callable[[dict[str, str]], Path]


@pytest.mark.parametrize(
    ("files", "quotas"),
    [
        ({}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, [1.5]),
        # A pod's quota on the parent of the container's group.
        (
            {
                "proc/self/cgroup": "0::/pod/main\n",
                "sys/fs/cgroup/pod/main/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "50000 100000\n",
            },
            [0.5],
        ),
        # Docker on version 1: the path is the host's, the mount shows the container's group as its root.
        (
            {
                "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            [3.0],
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            [],
        ),
    ],
)
def test_the_quota_is_read_from_both_versions_of_cgroups(
    write_root: WriteRoot, files: dict[str, str], quotas: list[float]
) -> None:
    assert list(cpu_quotas(write_root(files))) == quotas


def test_usable_cpus_are_the_minimum_of_affinity_and_quota_and_at_least_one(
    write_root: WriteRoot, tmp_path: Path
) -> None:
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
    write_root({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"})
    assert usable_cpus(tmp_path) == 1
    write_root({"sys/fs/cgroup/cpu.max": "100000000 100000\n"})
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
