"""A rollout and a node drain on the rendered manifest, with processes as containers (tests/cluster.py);
tests/images/test_rollout.py uses real containers.

1. while every pod is replaced, no request fails;
2. without preStop and draining some do, so that the first test can fail;
3. while two versions serve side by side, each answer names its version, and our client copes;
4. draining a node waits for replacements: never fewer pods than the budget allows, and no request fails;
5. without the budget some do.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from repvgg_client import AsyncClient, Result
from tests.cluster import (
    REQUESTS_PER_S,
    Cluster,
    Documents,
    Process,
    ask_during,
    new_connections,
    only,
    remove_draining,
    roll_out_under_load,
)


@pytest.fixture
def documents(render: Callable[[str], Documents]) -> Documents:
    return copy.deepcopy(render("overlays/cpu"))


@pytest.fixture
def cluster(documents: Documents, tiny_bundle: Path) -> Cluster:
    return Cluster(documents, partial(Process, model=tiny_bundle))


def test_while_every_pod_is_replaced_no_request_fails(cluster: Cluster, jpeg_bytes: bytes) -> None:
    old, replies = asyncio.run(roll_out_under_load(cluster, 2, jpeg_bytes))
    assert [pod.exit_code for pod in old] == [0, 0]
    assert len(replies) > REQUESTS_PER_S
    assert set(replies) == {200}


def test_without_pre_stop_and_draining_some_requests_fail(cluster: Cluster, jpeg_bytes: bytes) -> None:
    remove_draining(cluster.documents)
    _, replies = asyncio.run(roll_out_under_load(cluster, 1, jpeg_bytes))
    assert set(replies) > {200}


async def two_versions(cluster: Cluster, new_model: Path, image: bytes) -> tuple[list[Any], list[Result]]:
    """-> the responses in request order: one before the rollout, those during it, one after it; and the results that
    our client got meanwhile, batch after batch, on connections that live as long as their pod."""
    async with cluster.running(2), httpx.AsyncClient(base_url=cluster.url, timeout=60) as http:

        async def ask() -> Any:
            headers = {"content-type": "image/jpeg", "connection": "close"}
            return (await http.post("/classify?top_k=10", content=image, headers=headers)).json()

        async def roll_out() -> list[Result]:
            cluster.start = partial(Process, model=new_model)
            rollout = asyncio.create_task(cluster.roll_out())
            results: list[Result] = []
            async with AsyncClient(cluster.url) as client:
                while not rollout.done():
                    results += await client.classify([image] * 3)
            await rollout
            return results

        before = await ask()
        results, during = await ask_during(roll_out(), ask)
        return [before, *during, await ask()], results


def test_while_two_versions_serve_each_answer_names_its_version_and_our_client_copes(
    documents: Documents, write_version: Callable[..., Path], jpeg_bytes: bytes
) -> None:
    cluster = Cluster(documents, partial(Process, model=write_version(1)))
    answers, results = asyncio.run(two_versions(cluster, write_version(2), jpeg_bytes))
    versions = [answer["model"]["version"] for answer in answers]
    assert (versions[0], versions[-1]) == ("1", "2")
    assert "1" in versions[versions.index("2") :], "the versions never served side by side"
    scores = [{one["label"]: one["score"] for one in answer["results"][0]["predictions"]} for answer in answers]
    truths = {"1": scores[0], "2": scores[-1]}
    assert truths["1"] != pytest.approx(truths["2"], abs=1e-3)
    for version, answered in zip(versions, scores, strict=True):
        assert answered == pytest.approx(truths[version], abs=1e-4)
    for result in results:
        assert result.model is not None
        assert result.predictions[0].label == max(truths[result.model.version], key=truths[result.model.version].get)
    assert {result.model.version for result in results if result.model} == {"1", "2"}


async def drain_under_load(cluster: Cluster, replicas: int, drained: int, image: bytes) -> list[object]:
    """Drains the node of some of the pods -> the outcome of each request."""
    async with cluster.running(replicas), new_connections(cluster.url, image) as ask:
        _, replies = await ask_during(cluster.drain(cluster.pods[:drained]), ask)
        return replies


def test_draining_a_node_waits_for_replacements_and_no_request_fails(cluster: Cluster, jpeg_bytes: bytes) -> None:
    replies = asyncio.run(drain_under_load(cluster, 3, 2, jpeg_bytes))
    assert [pod.exit_code for pod in cluster.pods] == [0, 0, None, None, None]
    assert min(cluster.counts) == 2
    assert set(replies) == {200}


def test_without_the_budget_draining_a_node_leaves_no_pod_and_requests_fail(
    cluster: Cluster, jpeg_bytes: bytes
) -> None:
    only(cluster.documents, "PodDisruptionBudget")["maxUnavailable"] = 2
    replies = asyncio.run(drain_under_load(cluster, 2, 2, jpeg_bytes))
    assert min(cluster.counts) == 0
    assert set(replies) > {200}
