"""A rollout on the rendered manifest, without a cluster: processes for pods, and this file for Deployment controller,
kubelet and kube-proxy. Everything that is waited for takes an eighth of what the manifest says.

1. while every pod is replaced, no request fails;
2. without preStop and draining some do, so that the first test can fail.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import service

if TYPE_CHECKING:
    from conftest import Documents

ROOT = Path(service.__file__).parents[1]
HURRY = 8
# Seconds in real life until every node has heard of a change of the endpoints.
ENDPOINT_LAG_S = 4.0
REQUESTS_PER_S = 40


async def pause(seconds: float) -> None:
    """Of the manifest's seconds."""
    await asyncio.sleep(seconds / HURRY)


@dataclass(eq=False)
class Pod:
    """One container's process. `ready` is what the kubelet reports of it."""

    spec: dict[str, Any]
    settings: dict[str, str]
    model: Path
    ready: bool = False
    terminating: bool = False
    exit_code: int | None = None
    port: int = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        # All pods share this machine's address, so that each has a port of its own.
        own = {"REPVGG_HOST": "127.0.0.1", "REPVGG_PORT": str(self.port), "REPVGG_MODEL": str(self.model)}
        own["REPVGG_DRAIN_SECONDS"] = str(float(self.settings["REPVGG_DRAIN_SECONDS"]) / HURRY)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", *self.container["args"], "--engine", "onnxruntime"],
            cwd=ROOT,
            env=self.settings | own,
            stdout=subprocess.DEVNULL,
        )

    @property
    def container(self) -> dict[str, Any]:
        return self.spec["containers"][0]

    async def answers(self, client: httpx.AsyncClient, probe: dict[str, Any]) -> bool:
        try:
            path, timeout_s = probe["httpGet"]["path"], probe["timeoutSeconds"]
            return (await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s)).is_success
        except httpx.TransportError:
            return False

    async def watch(self, client: httpx.AsyncClient) -> None:
        """The kubelet's probes, until the process ends."""
        startup, readiness = self.container["startupProbe"], self.container["readinessProbe"]
        while not await self.answers(client, startup):
            assert self.process.poll() is None, "the pod ended before it was started"
            await pause(startup["periodSeconds"])
        failures = 0
        while self.process.poll() is None:
            failures = 0 if await self.answers(client, readiness) else failures + 1
            self.ready = failures < readiness["failureThreshold"] if self.ready else failures == 0
            await pause(readiness["periodSeconds"])

    async def terminate(self) -> None:
        """Leaves the endpoints and starts to end at the same moment, as in Kubernetes."""
        self.terminating = True
        await pause(self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        self.process.terminate()
        # Not in a hurry: finishing takes what it takes.
        self.exit_code = await asyncio.to_thread(self.process.wait, self.spec["terminationGracePeriodSeconds"])


class Cluster:
    """`seen`: the pods to which new connections go, as the nodes know it, some time after the truth."""

    def __init__(self, documents: Documents, model: Path) -> None:
        (deployment,) = [one["spec"] for one in documents if one["kind"] == "Deployment"]
        (settings,) = [one["data"] for one in documents if one["metadata"]["name"].startswith("repvgg-settings-")]
        self._new_pod: Callable[[], Pod] = lambda: Pod(deployment["template"]["spec"], settings, model)
        self._tasks: list[asyncio.Task[None]] = []
        self.pods: list[Pod] = []
        self.seen: list[Pod] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with httpx.AsyncClient() as self._client:
            self._tasks.append(asyncio.create_task(self._publish()))
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                for pod in self.pods:
                    pod.process.kill()
                    pod.process.wait()

    async def _publish(self) -> None:
        while True:
            truth = [pod for pod in self.pods if pod.ready and not pod.terminating]
            asyncio.get_running_loop().call_later(ENDPOINT_LAG_S / HURRY, setattr, self, "seen", truth)
            await asyncio.sleep(0.02)

    async def add(self) -> None:
        pod = self._new_pod()
        pod.start()
        self.pods.append(pod)
        watch = asyncio.create_task(pod.watch(self._client))
        self._tasks.append(watch)
        while not pod.ready:
            assert not watch.done(), watch.exception()
            await asyncio.sleep(0.02)

    async def roll_out(self) -> list[Pod]:
        """One more pod, then one less, until all are new: maxSurge 1, maxUnavailable 0. -> the old ones, ended."""
        old = list(self.pods)
        endings = []
        for pod in old:
            await self.add()
            endings.append(asyncio.create_task(pod.terminate()))
        await asyncio.gather(*endings)
        return old


async def ask_until(over: asyncio.Event, cluster: Cluster, image: bytes) -> list[object]:
    """Open loop: a request each 1/REQUESTS_PER_S seconds whatever became of those before -> the status of each, or why
    there is none. Each by a connection of its own, to the pods in turn that are seen.
    """

    async def ask(pod: Pod) -> object:
        url, headers = f"http://127.0.0.1:{pod.port}/classify", {"content-type": "image/jpeg"}
        try:
            return (await client.post(url, content=image, headers=headers)).status_code
        except httpx.TransportError as error:
            return type(error).__name__

    asked = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        for number in itertools.count():
            if over.is_set():
                break
            asked.append(asyncio.create_task(ask(cluster.seen[number % len(cluster.seen)])))
            await asyncio.sleep(1 / REQUESTS_PER_S)
        return list(await asyncio.gather(*asked))


async def roll_out_under_load(
    documents: Documents, replicas: int, model: Path, image: bytes
) -> tuple[list[Pod], list[object]]:
    """-> the pods that were replaced, and what became of each request."""
    cluster = Cluster(documents, model)
    async with cluster.running():
        await asyncio.gather(*(cluster.add() for _ in range(replicas)))
        while len(cluster.seen) < replicas:  # noqa: ASYNC110  # other tasks change it
            await asyncio.sleep(0.02)
        over = asyncio.Event()
        asking = asyncio.create_task(ask_until(over, cluster, image))
        old = await cluster.roll_out()
        over.set()
        return old, await asking


@pytest.fixture
def documents(render: Callable[[str], Documents]) -> Documents:
    return copy.deepcopy(render("overlays/cpu"))


def test_while_every_pod_is_replaced_no_request_fails(
    documents: Documents, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    old, replies = asyncio.run(roll_out_under_load(documents, 2, tiny_bundle, jpeg_bytes))
    assert [pod.exit_code for pod in old] == [0, 0]
    assert len(replies) > REQUESTS_PER_S
    assert set(replies) == {200}


def test_without_pre_stop_and_draining_some_requests_fail(
    documents: Documents, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    del deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"]
    (settings,) = [one for one in documents if one["metadata"]["name"].startswith("repvgg-settings-")]
    settings["data"]["REPVGG_DRAIN_SECONDS"] = "0"
    _, replies = asyncio.run(roll_out_under_load(documents, 1, tiny_bundle, jpeg_bytes))
    assert "ConnectError" in replies
