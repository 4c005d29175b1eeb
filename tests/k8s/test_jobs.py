"""1. the evaluation's pods split the images, and their logs merge into one result; 2. both training Jobs run the same
valid command."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

import service
from service.cli import main
from training.config import command_line

ROOT = Path(service.__file__).parents[1]


def pod(name: str) -> tuple[Any, Any]:
    """The Job's spec, and its only container."""
    spec = yaml.safe_load((ROOT / "k8s/jobs" / name).read_text())["spec"]
    template = spec.get("replicaSpecs", {}).get("Worker", spec)["template"]
    (container,) = template["spec"]["containers"]
    return spec, container


@pytest.fixture
def repvgg() -> Iterator[Callable[..., str]]:
    """`repvgg("evaluate", ...)` in this process -> its output; it configures the root logger."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    def run(*words: str) -> str:
        out = StringIO()
        assert main(words, {"REPVGG_ENGINE": "onnxruntime"}, out, StringIO()) == 0
        return out.getvalue()

    yield run
    root.handlers[:], root.level = before


def test_evaluation_pods_split_the_images_and_their_logs_merge_into_one_result(
    repvgg: Callable[..., str], tiny_bundle: Path, tmp_path: Path, draw_image: Callable[..., bytes]
) -> None:
    for number in range(9):
        folder = tmp_path / "data" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(draw_image(number, "JPEG"))
    job, container = pod("evaluate.yaml")
    assert (job["completionMode"], job["parallelism"]) == ("Indexed", job["completions"])
    given = {
        "--model=repvgg-small-tinyimagenet": f"--model={tiny_bundle}",
        "--data=/data": f"--data={tmp_path / 'data'}",
    }
    assert given.keys() <= set(container["args"])
    parts = []
    for index in range(job["completions"]):
        words = [given.get(word, word).replace("$(SHARD)", str(index)) for word in container["args"]]
        parts.append(tmp_path / f"{index}.log")
        parts[-1].write_text(repvgg(*words))
    merged = json.loads(repvgg("evaluate", "--merge", *map(str, parts), "--json"))
    whole = json.loads(repvgg("evaluate", *given.values(), "--json"))
    assert {name: merged[name] for name in ("images", "top1", "top5")} == {
        name: whole[name] for name in ("images", "top1", "top5")
    }
    assert merged["images"] == 9


def test_both_training_jobs_run_the_same_valid_command() -> None:
    _, ours = pod("train-ascend910.yaml")
    spec, theirs = pod("train-ascend910-ascendjob.yaml")
    for name in ("image", "command", "resources", "securityContext", "volumeMounts"):
        assert theirs[name] == ours[name], name
    # The Ascend operator requires these names.
    assert (theirs["name"], theirs["ports"]) == ("ascend", [{"name": "ascendjob-port", "containerPort": 2222}])
    assert spec["runPolicy"]["schedulingPolicy"]["minAvailable"] == spec["replicaSpecs"]["Worker"]["replicas"]
    words = [word.replace("/app/", f"{ROOT}/") for word in ours["command"]]
    launcher, flags = words[: words.index("python")], words[words.index("training.train") + 1 :]
    trained = command_line.parse(flags, prog="training.train", description="")[0]
    cards = int(ours["resources"]["limits"]["huawei.com/Ascend910"])
    assert {f"--worker_num={cards}", f"--local_worker_num={cards}", "--join=True"} <= set(launcher)
    assert (trained.device_target, trained.data_url, trained.save_dir) == ("Ascend", "/data", Path("/runs"))
    mounted = {mount["mountPath"] for mount in ours["volumeMounts"]}
    assert {"/data", "/runs"} <= mounted
