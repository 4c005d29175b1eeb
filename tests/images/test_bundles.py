"""Bundles from a registry, in real containers.

1. with an init container that pulls, every pod can be replaced without a failed request;
2. a pod whose bundle is not in the registry never serves;
3. what `repvgg push` sent is an image that can be mounted, and served from.
"""

from __future__ import annotations

import asyncio
import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hub import push as pushing
from hub.progress import Progress
from tests.cluster import REQUESTS_PER_S, ROOT, Cluster, Documents, kustomize, roll_out_under_load
from tests.hub.test_registry import registry
from tests.images.test_rollout import BUS, PodmanPod

if TYPE_CHECKING:
    from conftest import Container, Podman

NAME = "repvgg-small-tinyimagenet"
# The first test builds the image.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the shipped bundle in a registry, with its digest."""
    with registry(tmp_path_factory.mktemp("registry")) as host:
        environ = {"DOCKER_CONFIG": str(tmp_path_factory.mktemp("nobody"))}
        yield pushing.push(NAME, f"oci://{host}/models/{NAME}:1", environ, Progress(io.StringIO()))


def without_kubernetes(spec: dict[str, Any], address: str, image: str, folder: Path) -> None:
    """What podman 4.3 cannot do: an optional secret, a value from a ConfigMap, an emptyDir for anybody."""
    (init,) = spec["initContainers"]
    init["image"] = image
    init["env"] = [one for one in init["env"] if one["name"] != "BUNDLE"]
    init["args"] = [arg.replace("$(BUNDLE)", address) for arg in init["args"]]
    init["volumeMounts"] = [mount for mount in init["volumeMounts"] if mount["name"] != "registry"]
    folder.mkdir()
    folder.chmod(0o777)
    models = {"name": "models", "hostPath": {"path": str(folder), "type": "Directory"}}
    spec["volumes"] = [models, *(one for one in spec["volumes"] if one["name"] not in ("models", "registry"))]


@pytest.fixture
def cluster_of(podman: Podman, service_image: str, tmp_path: Path) -> Iterator[Callable[[str], Cluster]]:
    """`cluster_of("oci://...")`: its pods pull this address."""
    names: list[str] = []

    def make(address: str) -> Cluster:
        documents: Documents = copy.deepcopy(kustomize(ROOT / "k8s" / "overlays" / "cpu-pull"))

        def start(spec: dict[str, Any], settings: dict[str, str]) -> PodmanPod:
            names.append(f"test-pull-{settings['REPVGG_PORT']}")
            spec = copy.deepcopy(spec)
            spec["containers"][0]["image"] = service_image
            without_kubernetes(spec, address, service_image, tmp_path / f"{names[-1]}-models")
            return PodmanPod(podman, names[-1], spec, settings, tmp_path / f"{names[-1]}.yaml")

        return Cluster(documents, start)

    yield make
    for name in names:
        podman("pod", "rm", "--force", "--ignore", "--time=0", name)


def test_while_pods_that_pull_are_replaced_no_request_fails(cluster_of: Callable[[str], Cluster], pushed: str) -> None:
    old, replies = asyncio.run(roll_out_under_load(cluster_of(pushed), 2, BUS))
    assert [pod.exit_code for pod in old] == [0, 0]
    assert len(replies) > REQUESTS_PER_S
    assert set(replies) == {200}


def test_an_init_container_that_finds_nothing_names_it(podman: Podman, service_image: str, pushed: str) -> None:
    nowhere = pushed.partition("@")[0].replace(NAME, "nothing")
    command = ["pull", nowhere, "--store", "/tmp/models"]
    done = podman.run(
        "run", "--rm", "--read-only", "--tmpfs=/tmp", "--env=XDG_CACHE_HOME=/tmp", service_image, *command
    )
    assert done.returncode == 69
    assert "answered 404" in done.stderr


def test_what_was_pushed_can_be_mounted(podman: Podman, start: Callable[..., Container], pushed: str) -> None:
    image = pushed.removeprefix("oci://").replace(":1@", "@")
    podman("pull", "--tls-verify=false", image)
    container = start(f"--mount=type=image,source={image},destination=/bundle", "--env=REPVGG_MODEL=/bundle/models")
    container.wait_until_healthy()
    assert container.classify(ROOT / "models" / "samples" / "school_bus.jpg") == "school bus"
    podman("rm", "--force", "--time=0", container.name)
    podman("rmi", image)
