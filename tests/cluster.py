"""A cluster without Kubernetes, for a manifest as kustomize renders it. This file plays the Deployment controller, the
kubelet, kube-proxy and the eviction API; a pod's container, a process or a real one, is handed in. Waiting takes an
eighth of the manifest's seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import yaml

import service

ROOT = Path(service.__file__).parents[1]
HURRY = 8
# Seconds on a real cluster until every node knows of a change of the endpoints.
ENDPOINT_LAG_S = 4.0
# How long kubectl drain waits before it retries a rejected eviction.
EVICTION_RETRY_S = 5.0
LOOK_S = 0.02
REQUESTS_PER_S = 40

Documents = list[dict[str, Any]]
Answer = TypeVar("Answer")
Done = TypeVar("Done")


@cache
def kustomize(folder: Path) -> Documents:
    """The output of `kubectl kustomize` for a folder, with the kubectl of the set-up."""
    command = [Path(sys.executable).parent / "kubectl", "kustomize", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def only(documents: Documents, kind: str) -> Any:
    """The spec of the only one of this kind."""
    (found,) = [document["spec"] for document in documents if document["kind"] == kind]
    return found


def settings_in(documents: Documents) -> dict[str, str]:
    (settings,) = [one["data"] for one in documents if one["metadata"]["name"].startswith("repvgg-settings-")]
    return settings


def remove_draining(documents: Documents) -> None:
    """Pods end without preStop and draining."""
    del only(documents, "Deployment")["template"]["spec"]["containers"][0]["lifecycle"]
    settings_in(documents)["REPVGG_DRAIN_SECONDS"] = "0"


class Container(Protocol):
    """The running container of a pod, its only one."""

    def ended(self) -> bool: ...

    def stop(self, grace_s: float) -> int:
        """SIGTERM, and SIGKILL if it takes longer -> the exit code. Blocks; may be called again."""


StartContainer = Callable[[dict[str, Any], dict[str, str]], Container]


class Process:
    """The container's command, without a container; serves `model`."""

    def __init__(self, spec: dict[str, Any], settings: dict[str, str], *, model: Path) -> None:
        args = [*spec["containers"][0]["args"], "--engine=onnxruntime", f"--model={model}"]
        command = [sys.executable, "-m", "service", *args]
        self._process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.DEVNULL)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self, grace_s: float) -> int:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._process.kill()
        return self._process.wait()


async def pause(seconds: float) -> None:
    """Wait for so many of the manifest's seconds."""
    await asyncio.sleep(seconds / HURRY)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # other tasks change it
        await asyncio.sleep(LOOK_S)


@dataclass(eq=False)
class Pod:
    """`ready` is what the kubelet reports of it."""

    spec: dict[str, Any]
    port: int
    container: Container
    ready: bool = False
    terminating: bool = False
    exit_code: int | None = None

    async def _answers(self, client: httpx.AsyncClient, probe: dict[str, Any]) -> bool:
        try:
            path, timeout_s = probe["httpGet"]["path"], probe["timeoutSeconds"]
            return (await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s)).is_success
        except httpx.TransportError:
            return False

    async def watch(self, client: httpx.AsyncClient) -> None:
        """The kubelet's probes, until the container ends."""
        (spec,) = self.spec["containers"]
        startup, readiness = spec["startupProbe"], spec["readinessProbe"]
        failures = 0
        while not await self._answers(client, startup):
            failures += 1
            # Starting runs at real speed.
            assert failures < startup["failureThreshold"] * HURRY, "the container did not start in time"
            assert not self.container.ended(), "the container ended before it was started"
            await pause(startup["periodSeconds"])
        failures = 0
        while not self.container.ended():
            failures = 0 if await self._answers(client, readiness) else failures + 1
            self.ready = failures < readiness["failureThreshold"] if self.ready else failures == 0
            await pause(readiness["periodSeconds"])

    async def delete(self) -> None:
        """It leaves the endpoints and begins to end at the same moment, as in Kubernetes."""
        self.terminating = True
        (spec,) = self.spec["containers"]
        await pause(spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        # In real seconds: requests in flight do not finish any faster.
        self.exit_code = await asyncio.to_thread(self.container.stop, self.spec["terminationGracePeriodSeconds"])


@dataclass
class Cluster:
    """`url`: the address of the Service. `seen`: the pods to which the nodes send its new connections, some time behind
    the truth. `counts`: how many pods were healthy, at each look."""

    documents: Documents
    start: StartContainer
    pods: list[Pod] = field(default_factory=list)
    seen: list[Pod] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, replicas: int) -> AsyncIterator[Cluster]:
        self._tasks: list[asyncio.Task[None]] = [asyncio.create_task(self._publish())]
        self._turns = itertools.count()
        async with httpx.AsyncClient() as self._client:
            proxy = await asyncio.start_server(self._forward, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            try:
                await asyncio.gather(*(self.add() for _ in range(replicas)))
                await until(lambda: len(self.seen) == replicas)
                self.counts.clear()
                yield self
            finally:
                proxy.close()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                for pod in self.pods:
                    pod.container.stop(grace_s=0)

    async def _publish(self) -> None:
        while True:
            truth = self._healthy()
            self.counts.append(len(truth))
            asyncio.get_running_loop().call_later(ENDPOINT_LAG_S / HURRY, setattr, self, "seen", truth)
            await asyncio.sleep(LOOK_S)

    async def _forward(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """A connection goes to the next pod in turn, for as long as both sides keep it; without a pod it is closed."""
        with contextlib.suppress(ConnectionError):
            if seen := self.seen:
                port = seen[next(self._turns) % len(seen)].port
                pod, to_pod = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(_copy(client, to_pod), _copy(pod, to_client))
        to_client.close()

    async def add(self) -> None:
        """Start a pod and wait until it is ready."""
        spec = only(self.documents, "Deployment")["template"]["spec"]
        settings = settings_in(self.documents)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        # All pods share this machine's address, so each has its own port.
        own = {"REPVGG_HOST": "127.0.0.1", "REPVGG_PORT": str(port)}
        own["REPVGG_DRAIN_SECONDS"] = str(float(settings["REPVGG_DRAIN_SECONDS"]) / HURRY)
        pod = Pod(spec, port, await asyncio.to_thread(self.start, spec, settings | own))
        self.pods.append(pod)
        watch = asyncio.create_task(pod.watch(self._client))
        self._tasks.append(watch)
        await until(lambda: pod.ready or watch.done())
        assert pod.ready, watch.exception()

    async def roll_out(self) -> list[Pod]:
        """One more pod, then one less, until all are new: maxSurge 1, maxUnavailable 0. -> the old ones, ended."""
        old = list(self.pods)
        endings = []
        for pod in old:
            await self.add()
            endings.append(asyncio.create_task(pod.delete()))
        await asyncio.gather(*endings)
        return old

    async def drain(self, pods: list[Pod]) -> None:
        """Their node is emptied, as by `kubectl drain`: each is evicted as soon as the PodDisruptionBudget allows it,
        and the ReplicaSet starts another one elsewhere."""
        needed = len(self._healthy()) - only(self.documents, "PodDisruptionBudget")["maxUnavailable"]

        async def evict(pod: Pod) -> None:
            while len(self._healthy()) <= needed:
                await pause(EVICTION_RETRY_S)
            pod.terminating = True  # before any await, so that the next eviction counts it
            await asyncio.gather(pod.delete(), self.add())

        await asyncio.gather(*map(evict, pods))

    def _healthy(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.ready and not pod.terminating]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def ask_during(work: Awaitable[Done], ask: Callable[[], Awaitable[Answer]]) -> tuple[Done, list[Answer]]:
    """Open loop: until the work is done, ask every 1/REQUESTS_PER_S seconds, answered or not."""
    working = asyncio.ensure_future(work)
    asked = []
    while not working.done():
        asked.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(1 / REQUESTS_PER_S)
    return await working, list(await asyncio.gather(*asked))


@asynccontextmanager
async def new_connections(url: str, image: bytes) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """`ask()` -> the status of one classification, or the error instead of it; each on a new connection."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def ask() -> object:
            try:
                headers = {"content-type": "image/jpeg"}
                return (await client.post("/classify", content=image, headers=headers)).status_code
            except httpx.TransportError as error:
                return type(error).__name__

        yield ask


async def roll_out_under_load(cluster: Cluster, replicas: int, image: bytes) -> tuple[list[Pod], list[object]]:
    """-> the pods that were replaced, and the outcome of each request."""
    async with cluster.running(replicas), new_connections(cluster.url, image) as ask:
        return await ask_during(cluster.roll_out(), ask)
