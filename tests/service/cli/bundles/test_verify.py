from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.cli.bundles.verify import line
from service.engines.conformance import Row


def test_there_is_a_line_for_each_engine_and_precision(repvgg: Callable[..., Any], tiny_bundle: Path) -> None:
    ended = repvgg("inspect", tiny_bundle, "--verify", "--calls", 10)
    lines = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert lines[0].split() == ["engine", "precision", "max", "|delta|", "top-1", "images/s"]
    engine, precision, delta, top1, speed = lines[1].split()
    assert (engine, precision, top1) == ("onnxruntime", "fp32", "100.0%")
    assert float(delta) <= 1e-4
    assert float(speed) > 0
    assert lines[2:] == [
        "onnxruntime    fp16       not available: the manifest gives no golden tolerance for fp16",
        "onnxruntime    int8       not available: the manifest gives no golden tolerance for int8",
    ]


def test_json_is_one_object(repvgg: Callable[..., Any], tiny_bundle: Path) -> None:
    ended = repvgg("inspect", tiny_bundle, "--verify", "--calls", 10, "--json")
    rows = json.loads(ended.out)["engines"]
    assert [(row["engine"], row["precision"], row["failures"]) for row in rows] == [
        ("onnxruntime", "fp32", []),
        ("onnxruntime", "fp16", []),
        ("onnxruntime", "int8", []),
    ]
    assert rows[0]["images_per_second"] > 0
    assert "no golden tolerance" in rows[1]["unavailable"]


def test_a_failed_check_has_exit_code_70(repvgg: Callable[..., Any], wrong_bundle: Path) -> None:
    ended = repvgg("inspect", wrong_bundle, "--verify", "--calls", 10)
    assert ended.code == 70
    assert "  FAILED golden logits: up to " in ended.out
    assert ended.err == "repvgg inspect: onnxruntime fp32 failed checks on this bundle\n"


def test_a_bundle_without_a_usable_engine_has_exit_code_69(repvgg: Callable[..., Any], tiny_bundle: Path) -> None:
    ended = repvgg("inspect", tiny_bundle, "--verify", environ={"REPVGG_ENGINE": "mindspore"})
    assert (ended.code, ended.err) == (69, "repvgg inspect: no engine can serve this bundle here\n")
    assert ended.out.endswith("mindspore      fp32       not available: the bundle has no artifact for it\n")


def test_less_than_one_call_is_rejected(repvgg: Callable[..., Any], tiny_bundle: Path) -> None:
    ended = repvgg("inspect", tiny_bundle, "--verify", "--calls", 0)
    assert (ended.code, ended.err) == (2, "repvgg inspect: --calls 0 is less than 1\n")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Row("openvino", "bf16", unavailable="no"), "openvino       bf16       not available: no"),
        (
            Row("openvino", "bf16", max_delta=0.0365, top1_agreement=0.9, images_per_second=3312.4),
            "openvino       bf16       0.0365       90.0%   3312",
        ),
        (
            Row("mindspore", "fp32", failures=(("process", "it died"),)),
            "mindspore      fp32\n  FAILED process: it died",
        ),
    ],
)
def test_a_row_in_words(row: Row, text: str) -> None:
    assert line(row) == text
