"""The rendered manifest with real containers: podman starts the pods from YAML, tests/cluster.py simulates the cluster.

1. a pod can only listen: the kernel enforces what the manifest says;
2. while every pod is replaced, no request fails;
3. without preStop and draining some do, so that the second test can fail.
"""

from __future__ import annotations

import asyncio
import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cluster import (
    REQUESTS_PER_S,
    ROOT,
    Cluster,
    Documents,
    kustomize,
    only,
    remove_draining,
    roll_out_under_load,
)

if TYPE_CHECKING:
    from conftest import Podman

BUS = (ROOT / "models" / "samples" / "school_bus.jpg").read_bytes()
# The first test builds the image.
pytestmark = pytest.mark.timeout(1200)


class PodmanPod:
    """A pod started by `podman play kube`; acts as the container in tests.cluster."""

    def __init__(self, podman: Podman, name: str, spec: dict[str, Any], settings: dict[str, str], file: Path) -> None:
        self.podman = podman
        (container,) = spec["containers"]
        self.name = f"{name}-{container['name']}"
        (source,) = container["envFrom"]
        source["configMapRef"]["name"] = name
        # The host's network, because podman often has no other; no probes, because the simulated cluster probes.
        spec["hostNetwork"] = True
        for left_out in ("ports", "startupProbe", "readinessProbe", "livenessProbe"):
            del container[left_out]
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": settings}
        # Podman makes an emptyDir a volume of that name, which pods would share, and create at the same time.
        mounts = (
            mount for one in (container, *spec.get("initContainers", ())) for mount in one.get("volumeMounts", ())
        )
        for volume in (*spec.get("volumes", ()), *mounts):
            volume["name"] = f"{name}-{volume['name']}"
        # Podman's default would start an init container again, for ever.
        spec["restartPolicy"] = "Never"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        file.write_text(yaml.safe_dump_all([config, pod]))
        podman("play", "kube", file)
        self._process = Path("/proc") / str(podman.inspect(self.name)["State"]["Pid"])

    def ended(self) -> bool:
        return not self._process.exists()

    def stop(self, grace_s: float) -> int:
        self.podman("stop", f"--time={grace_s}", self.name)
        return int(self.podman.inspect(self.name)["State"]["ExitCode"])


@pytest.fixture
def documents() -> Documents:
    return copy.deepcopy(kustomize(ROOT / "k8s" / "overlays" / "cpu"))


@pytest.fixture
def cluster(documents: Documents, podman: Podman, service_image: str, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose pods run the image under test."""
    names: list[str] = []

    def start(spec: dict[str, Any], settings: dict[str, str]) -> PodmanPod:
        names.append(f"test-repvgg-{settings['REPVGG_PORT']}")
        spec = copy.deepcopy(spec)
        spec["containers"][0]["image"] = service_image
        return PodmanPod(podman, names[-1], spec, settings, tmp_path / f"{names[-1]}.yaml")

    yield Cluster(documents, start)
    for name in names:
        podman("pod", "rm", "--force", "--ignore", "--time=0", name)
        if volumes := podman("volume", "ls", "--quiet", f"--filter=name=^{name}-").split():
            podman("volume", "rm", *volumes)


async def seen_in_a_pod(cluster: Cluster, *commands: list[str]) -> list[str]:
    """The output of each command inside a pod that serves."""
    async with cluster.running(1):
        container = cluster.pods[0].container
        assert isinstance(container, PodmanPod)
        return [container.podman("exec", container.name, *command) for command in commands]


def test_a_pod_can_only_listen(cluster: Cluster) -> None:
    ask_service = [
        "python",
        "-c",
        "from service.machine.limits import *; print(usable_cpus(), min(memory_limits()) >> 20)",
    ]
    looks = ["cat", "/proc/1/status"], ["cat", "/proc/mounts"], ask_service
    status, mounts, limits = asyncio.run(seen_in_a_pod(cluster, *looks))
    facts = dict(re.findall(r"^(\w+):\t(.+)$", status, re.MULTILINE))
    assert facts["Uid"].split() == facts["Gid"].split() == ["1000"] * 4
    assert {int(facts[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert re.search(r"^\S+ / \S+ ro[, ]", mounts, re.MULTILINE)
    (container,) = only(cluster.documents, "Deployment")["template"]["spec"]["containers"]
    cpus, mebibytes = map(int, limits.split())
    assert cpus == min(int(container["resources"]["limits"]["cpu"]), os.cpu_count())
    assert container["resources"]["limits"]["memory"] == f"{mebibytes}Mi"


def test_while_every_pod_is_replaced_no_request_fails(cluster: Cluster) -> None:
    old, replies = asyncio.run(roll_out_under_load(cluster, 2, BUS))
    assert [pod.exit_code for pod in old] == [0, 0]
    assert len(replies) > REQUESTS_PER_S
    assert set(replies) == {200}


def test_without_pre_stop_and_draining_some_requests_fail(cluster: Cluster) -> None:
    remove_draining(cluster.documents)
    _, replies = asyncio.run(roll_out_under_load(cluster, 1, BUS))
    assert set(replies) > {200}
