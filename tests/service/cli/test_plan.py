from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.machine.limits import usable_cpus
from service.settings import Settings


@pytest.fixture
def planned(repvgg: Callable[..., Any], tiny_bundle: Path) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        return repvgg("doctor", "--plan", "--model", tiny_bundle, *arguments)

    return run


def test_the_plan_follows_from_a_measured_pod(planned: Callable[..., Any], photos: Path) -> None:
    load = ("--rate", 10, "--deadline-ms", 60_000)
    ended = planned(*load, "--max-batch-size", 3, "--photos", photos, "--json")
    told = json.loads(ended.out)
    tuning, measured, plan = told["tuning"], told["measured"], told["plan"]
    assert (ended.code, tuning["max_batch_size"], list(tuning["batch_s"])) == (0, 3, ["1", "2", "3"])
    assert min(measured[name] for name in ("decode_s", "alone_s", "image_s", "resident_bytes")) > 0
    assert (measured["cpus"], measured["shares_cpus"]) == (usable_cpus(), True)
    speed = 1 / (measured["image_s"] + measured["decode_s"] / usable_cpus())
    assert plan["busy_share"] == pytest.approx(0.7 * speed * measured["image_s"])
    per_million = plan["replicas"] * usable_cpus() / 10 * 1e6 / 3600
    assert plan["core_hours_per_million"] == pytest.approx(per_million)
    held = Settings().max_queue_bytes + usable_cpus() * Settings().max_image_pixels * 4
    assert plan["memory_bytes"] > measured["resident_bytes"] + held


def test_the_plan_in_words_can_be_copied_into_the_manifests(planned: Callable[..., Any]) -> None:
    ended = planned("--rate", 10, "--deadline-ms", 60_000, "--engine-threads", 1)
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert list(lines) == ["model", "measured", "pod", "replicas", "cost", "autoscale", "settings"]
    assert "core hours per million images; " in lines["cost"]
    assert lines["model"] == "tiny 1 with onnxruntime fp32 on CPUExecutionProvider"
    assert lines["pod"].startswith("cpu 1, memory ")
    assert " for 10 images/s; one of them may be down" in lines["replicas"]
    assert lines["autoscale"].startswith("minReplicas 2, maxReplicas ")
    variables = dict(pair.split("=") for pair in lines["settings"].split())
    assert Settings.model_validate({name.removeprefix("REPVGG_").lower(): value for name, value in variables.items()})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plan", "--rate", 5), "--plan, --rate R and --deadline-ms D must be given together"),
        (("--rate", 5), "--plan, --rate R and --deadline-ms D must be given together"),
        (
            ("--plan", "--rate", 5, "--deadline-ms", 0.001),
            "no number of pods like this one can meet 0.001 ms: a single image takes ",
        ),
        (("--plan", "--rate", 5, "--deadline-ms", 5, "--photos", "nowhere"), "--photos nowhere has no images"),
    ],
)
def test_an_impossible_plan_is_a_usage_error(
    repvgg: Callable[..., Any], tiny_bundle: Path, arguments: tuple[Any, ...], said: str
) -> None:
    ended = repvgg("doctor", "--model", tiny_bundle, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


def test_a_pipe_among_the_photos_is_named_and_not_waited_for(
    repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    plan = ("--plan", "--rate", 5, "--deadline-ms", 5, "--photos", tmp_path)
    ended = repvgg("doctor", "--model", tiny_bundle, *plan)
    assert (ended.code, ended.out) == (2, "")
    assert "pipe.jpg cannot be read: not a regular file" in ended.err


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "many"])
def test_a_rate_is_a_number_above_0(repvgg: Callable[..., Any], rate: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        repvgg("doctor", "--plan", "--rate", rate, "--deadline-ms", 100)
