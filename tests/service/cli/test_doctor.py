from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import features

from service.engine_table import ENGINES
from service.machine.limits import usable_cpus


@pytest.fixture
def doctor(repvgg: Callable[..., Any], tiny_bundle: Path) -> Callable[..., Any]:
    def run(*arguments: Any, **streams: Any) -> Any:
        return repvgg("doctor", "--model", tiny_bundle, "--port", 0, *arguments, **streams)

    return run


def test_a_machine_that_can_serve_gives_exit_code_0_and_the_engine(doctor: Callable[..., Any]) -> None:
    ended = doctor()
    lines = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert {line[:8].strip() for line in lines} == {"ok"}
    topics = [line.split()[1] for line in lines]
    assert list(dict.fromkeys(topics)) == ["system", "cpu", "threads", "memory", "engines", "codecs", "port", "model"]
    assert lines[-1] == "ok       model     onnxruntime fp32 on CPUExecutionProvider would serve, the only one possible"
    assert f"ok       threads   {usable_cpus()} CPUs may be used: affinity " in ended.out
    assert "reads JPEG, PNG, WEBP, GIF, BMP, TIFF" in ended.out


def test_json_is_one_object(doctor: Callable[..., Any]) -> None:
    told = json.loads(doctor("--json").out)
    assert told["can_serve"] is True
    assert {"topic": "model", "level": "ok", "text": "onnxruntime fp32"} in told["findings"]


def test_every_problem_is_reported_and_the_first_one_decides_the_exit_code(repvgg: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = repvgg("doctor", "--model", "nowhere", "--port", port)
    assert ended.code == 69
    assert f"PROBLEM  port      cannot listen on 127.0.0.1 port {port}: the port is in use; stop the other" in ended.out
    assert "PROBLEM  model     no model bundle at nowhere: give a folder" in ended.out
    assert ended.err.startswith(f"repvgg doctor: cannot listen on 127.0.0.1 port {port}")


def test_findings_before_a_problem_are_reported_too(repvgg: Callable[..., Any], wrong_bundle: Path) -> None:
    ended = repvgg("doctor", "--model", wrong_bundle, "--port", 0, "--json")
    told = json.loads(ended.out)
    assert (ended.code, told["can_serve"]) == (70, False)
    found = [(one["level"], one["text"]) for one in told["findings"] if one["topic"] == "model"]
    assert [level for level, _ in found] == ["ok", "PROBLEM"]
    assert "off the golden logits" in found[1][1]


def test_more_threads_than_cpus_are_a_warning(doctor: Callable[..., Any]) -> None:
    many = usable_cpus() + 1
    ended = doctor("--engine-threads", many, environ={"REPVGG_DECODE_THREADS": str(many)})
    assert ended.code == 0
    assert f"warning  threads   engine_threads is {many} on {usable_cpus()} CPUs" in ended.out
    assert f"warning  threads   decode_threads is {many} on {usable_cpus()} CPUs" in ended.out


def test_a_missing_engine_is_listed_with_the_command_to_install_it(
    doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "openvino", replace(ENGINES["openvino"], package="no_such_package"))
    assert "openvino: not installed (pip install 'repvgg[openvino]'); supports fp32, bf16, int8" in doctor().out


def test_a_missing_codec_is_a_warning(doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "webp")
    ended = doctor()
    assert ended.code == 0
    assert "reads JPEG, PNG, GIF, BMP, TIFF" in ended.out
    assert "warning  codecs    images of these formats will be rejected: WEBP" in ended.out


def test_variables_injected_by_kubernetes_are_a_warning(doctor: Callable[..., Any]) -> None:
    ended = doctor(environ={"REPVGG_SERVICE_HOST": "10.0.0.1"})
    assert (ended.code, ended.out.startswith("warning  settings  ignored variables that Kubernetes injects")) == (
        0,
        True,
    )


def test_an_invalid_configuration_has_exit_code_78(doctor: Callable[..., Any]) -> None:
    assert doctor(environ={"REPVGG_PROT": "1"}).code == 78


def test_fast_pixels_that_would_not_be_served_are_a_problem(doctor: Callable[..., Any]) -> None:
    ended = doctor("--pixels", "fast")
    assert ended.code == 78
    assert "PROBLEM  model     --pixels=fast: the manifest gives no accuracy of fast pixels" in ended.out
