"""What is specific to OpenVINO; what all engines have in common is in test_every_engine.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import BundleError
from models.store import Bundle
from service.engines.runtimes import openvino
from service.engines.runtimes.openvino import ONEDNN_ISA, OpenVinoEngine
from service.errors import EngineUnavailable


def test_bf16_on_a_cpu_without_it_is_not_emulated(full_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "cpu_flags", lambda: frozenset({"avx512f"}))
    with pytest.raises(EngineUnavailable, match=r"no bf16 arithmetic .*amx_bf16.* --precision fp32"):
        OpenVinoEngine.open(full_bundle, "bf16", threads=1)


def test_bf16_is_rejected_under_the_limit_that_mindspore_needs(
    full_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setenv(ONEDNN_ISA, "AVX2")
    with pytest.raises(EngineUnavailable, match="DNNL_MAX_CPU_ISA=AVX2 in the environment disables OpenVINO's bf16"):
        OpenVinoEngine.open(full_bundle, "bf16", threads=1)


@pytest.mark.parametrize("which", ["input", "output"])
def test_tensor_names_that_differ_from_the_manifest_are_rejected(full_bundle: Bundle, which: str) -> None:
    artifact = full_bundle.artifact(("onnx",), "fp32").model_copy(update={which: "other"})
    bundle = replace(full_bundle, manifest=full_bundle.manifest.model_copy(update={"artifacts": [artifact]}))
    with pytest.raises(BundleError, match=rf"model\.onnx {which} .* the manifest wants .*'other'"):
        OpenVinoEngine.open(bundle, "fp32", threads=1)


def test_the_next_call_does_not_change_the_answers_of_the_last_one(full_bundle: Bundle) -> None:
    engine = OpenVinoEngine.open(full_bundle, "fp32", threads=1)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    first = engine.infer(images)
    kept = first.copy()
    engine.infer(images[::-1])
    np.testing.assert_array_equal(first, kept)
    engine.close()


def test_a_closed_engine_says_so(full_bundle: Bundle) -> None:
    engine = OpenVinoEngine.open(full_bundle, "fp32", threads=1)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.infer(np.zeros((1, 3, 32, 32), np.float32))


def test_a_corrupt_file_is_tried_as_onnx_only(
    full_bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded by OpenVINO"):
        OpenVinoEngine.open(replace(full_bundle, folder=tmp_path), "fp32", threads=1)
    assert capfd.readouterr() == ("", "")
