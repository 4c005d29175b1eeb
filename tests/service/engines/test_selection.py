"""The promises of service.engines.selection, with fake engines of different speeds unless a test says otherwise."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import BundleError
from models.manifest import Accuracy
from models.store import Bundle, open_bundle
from service.engine_table import ENGINES
from service.engines import timing
from service.engines.runtimes.fake import FakeEngine
from service.engines.selection import (
    Candidate,
    Choice,
    check_pixels,
    engine_options,
    find_candidates,
    in_words,
    open_engine,
)
from service.errors import ConfigError, EngineUnavailable, GoldenCheckFailed
from service.settings import Settings

MS_PER_BATCH = {"fp32": 40, "fp16": 40, "bf16": 20, "int8": 10}


class Clock:
    """The time by which speed is measured: only a fake engine's work makes it pass, however busy the machine is."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


CLOCK = Clock()


@pytest.fixture(autouse=True)
def measured_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "time", CLOCK)


class Opened:
    """Opens a fake engine for each candidate, `slower` times as slow on openvino, and remembers them all."""

    def __init__(self, slower: float = 1.0, ms_per_batch: dict[str, int] = MS_PER_BATCH) -> None:
        self.engines: list[FakeEngine] = []
        self._slower = slower
        self._ms_per_batch = ms_per_batch

    def __call__(self, candidate: Candidate) -> FakeEngine:
        slower = self._slower if candidate.engine == "openvino" else 1.0
        seconds = self._ms_per_batch[candidate.precision] * slower / 1000

        def work(images: NDArray[np.float32]) -> None:
            CLOCK.now_s += seconds

        engine = FakeEngine(10, 32, fail=work)
        engine.precision = candidate.precision
        self.engines.append(engine)
        return engine


def choose(bundle: Bundle, load: Any = None, **settings: Any) -> Choice:
    engine, choice = open_engine(bundle, Settings(**settings), load or Opened())
    engine.close()
    return choice


def without(bundle: Bundle, **changed: Any) -> Bundle:
    return Bundle(bundle.folder, bundle.manifest.model_copy(update=changed), bundle.labels)


def objections(bundle: Bundle, **settings: Any) -> dict[str, str | None]:
    return {
        f"{one.engine} {one.precision}": str(one.objection) if one.objection else None
        for one in find_candidates(bundle, Settings(**settings))
    }


def test_a_configured_engine_or_precision_is_used_and_never_replaced(full_bundle: Bundle) -> None:
    load = Opened()
    choice = choose(full_bundle, load, engine="openvino", precision="bf16")
    assert (choice.reason, [str(one) for one in choice.candidates]) == ("as configured", ["openvino bf16"])
    assert len(load.engines) == 1
    assert choose(full_bundle, engine="onnxruntime").precision == "int8"
    with pytest.raises(ConfigError, match="the engine onnxruntime does not support precision bf16"):
        choose(full_bundle, engine="onnxruntime", precision="bf16")


def test_auto_takes_the_fastest_and_closes_all_others(full_bundle: Bundle) -> None:
    load = Opened(slower=3.0)
    engine, choice = open_engine(full_bundle, Settings(), load)
    assert (choice.precision, choice.reason) == ("int8", "the fastest")
    measured = [(one.engine, one.precision) for one in choice.candidates if one.images_per_second]
    assert measured == [
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
        ("openvino", "bf16"),
    ]
    [left_open] = [one for one in load.engines if not one.closed]
    engine.close()
    assert left_open.closed
    engine.close()


def test_a_less_exact_precision_is_chosen_only_if_it_is_clearly_faster(full_bundle: Bundle) -> None:
    equally_fast = dict.fromkeys(MS_PER_BATCH, 20)
    assert choose(full_bundle, Opened(ms_per_batch=equally_fast)).precision == "fp32"
    assert choose(full_bundle, Opened(slower=0.5, ms_per_batch=equally_fast)).precision == "fp32"


def test_no_more_exact_precision_is_measured_once_the_engine_has_a_far_faster_one_and_no_fp32_of_others(
    full_bundle: Bundle,
) -> None:
    load = Opened()
    choice = choose(full_bundle, load)
    assert [engine.precision for engine in load.engines] == ["fp32", "int8", "int8"]
    not_measured = {f"{one.engine} {one.precision}": one.state for one in choice.candidates if one.objection}
    assert list(not_measured) == ["onnxruntime fp16", "openvino bf16", "openvino fp32", "ncnn fp32"]
    for state in not_measured.values():
        assert re.fullmatch(r": not measured: int8 is \d\.\d times as fast as fp32", state)


def test_the_fp32_of_every_engine_is_measured_if_no_precision_is_far_faster(full_bundle: Bundle) -> None:
    choice = choose(full_bundle, Opened(ms_per_batch=MS_PER_BATCH | {"int8": 20}))
    measured = [one.engine for one in choice.candidates if one.precision == "fp32" and one.images_per_second]
    assert measured == ["onnxruntime", "openvino", "ncnn"]


def test_a_precision_that_the_manifest_does_not_vouch_for_is_never_chosen(full_bundle: Bundle) -> None:
    lossy = without(full_bundle, accuracy=Accuracy(top1={"fp32": 0.86, "int8": 0.84}, max_top1_drop=0.005))
    assert objections(lossy)["onnxruntime int8"] == "int8 loses 2.00% of top-1, but the manifest allows 0.50%"
    assert choose(lossy, Opened(slower=2.0)).precision in ("fp32", "bf16")
    assert choose(lossy, engine="openvino", precision="int8").reason == "as configured"


def test_an_engine_that_fails_the_golden_check_is_never_chosen(full_bundle: Bundle) -> None:
    class Wrong(FakeEngine):
        name = "wrong"

    wrong: list[Wrong] = []

    def load(candidate: Candidate) -> FakeEngine:
        if candidate.precision == "int8":
            wrong.append(Wrong(10, 32))
            return wrong[-1]
        return Opened()(candidate)

    choice = choose(full_bundle, load)
    assert choice.precision == "bf16"
    found = [str(one.objection) for one in choice.candidates if one.precision == "int8"]
    assert ["off the golden logits" in objection for objection in found] == [True, True]
    assert [one.closed for one in wrong] == [True, True]
    with pytest.raises(GoldenCheckFailed, match="the engine wrong"):
        choose(full_bundle, load, precision="int8")


def test_an_engine_that_cannot_be_opened_is_never_chosen(full_bundle: Bundle) -> None:
    def load(candidate: Candidate) -> FakeEngine:
        if candidate.engine == "openvino":
            raise EngineUnavailable("no such device")
        return Opened()(candidate)

    choice = choose(full_bundle, load)
    assert choice.precision == "int8"
    refused = [one.precision for one in choice.candidates if str(one.objection) == "no such device"]
    assert refused == ["int8", "bf16"]


def without_packages(monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    for name in engines:
        monkeypatch.setitem(ENGINES, name, replace(ENGINES[name], package="no_such_package"))


def test_nothing_is_measured_if_only_one_candidate_is_possible(tiny_bundle: Path, monkeypatch: Any) -> None:
    without_packages(monkeypatch, "openvino", "ncnn")
    tiny = open_bundle(tiny_bundle)

    def infer(images: NDArray[np.float32]) -> None:
        raise AssertionError("it was measured")

    engine, choice = open_engine(tiny, Settings(), lambda _: FakeEngine(10, 32, fail=infer))
    engine.close()
    assert choice.reason == "the only one possible"
    assert [str(one) for one in choice.candidates] == [
        "onnxruntime fp32",
        "openvino fp32: the engine openvino is not installed: pip install 'repvgg[openvino]'",
        "ncnn fp32: the engine ncnn is not installed: pip install 'repvgg[ncnn]'",
        "openvino bf16: the engine openvino is not installed: pip install 'repvgg[openvino]'",
    ]


def test_the_runtimes_of_impossible_candidates_are_not_imported(tiny_bundle: Path) -> None:
    """The real engines, in a process of its own."""
    program = (
        "import sys; from models.store import open_bundle; from service.engines.selection import open_engine\n"
        "from service.settings import Settings\n"
        f"open_engine(open_bundle({str(tiny_bundle)!r}), Settings(engine_provider='cpu', precision='fp32'))\n"
        "print(sorted({'onnxruntime', 'openvino', 'ncnn', 'mindspore'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['ncnn', 'onnxruntime', 'openvino']"


def test_mindspore_is_a_candidate_only_if_nothing_else_can_serve(full_bundle: Bundle) -> None:
    assert not any(name.startswith("mindspore") for name in objections(full_bundle))
    mindir = [artifact for artifact in full_bundle.manifest.artifacts if artifact.format == "mindir"]
    assert objections(without(full_bundle, artifacts=mindir)) == {"mindspore fp32": None}


def test_if_nothing_can_serve_every_reason_is_given(tiny_bundle: Path, monkeypatch: Any) -> None:
    tiny = open_bundle(tiny_bundle)
    with pytest.raises(BundleError, match=r"no onnx artifact of precision int8; .*engine mindspore does not support"):
        choose(tiny, precision="int8")
    without_packages(monkeypatch, "onnxruntime", "openvino", "ncnn")
    with pytest.raises(EngineUnavailable, match=r"repvgg\[onnx\]'; the engine openvino .*repvgg\[openvino\]"):
        choose(tiny)


def test_a_provider_belongs_to_onnxruntime_alone(full_bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="--engine-provider=cuda is for onnxruntime, not for openvino"):
        choose(full_bundle, engine="openvino", engine_provider="cuda")
    with pytest.raises(ConfigError, match="--engine-provider=cuda is for onnxruntime, not for mindspore-lite"):
        engine_options("mindspore-lite", Settings(engine_provider="cuda"))
    found = objections(full_bundle, engine_provider="cuda")
    assert [name for name, objection in found.items() if objection is None] == [
        "onnxruntime fp32",
        "onnxruntime fp16",
        "onnxruntime int8",
    ]


def test_a_choice_lists_the_others_in_one_log_line(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The real engines."""
    caplog.set_level(logging.INFO)
    tiny = open_bundle(tiny_bundle)
    engine, choice = open_engine(tiny, Settings(engine="openvino"))
    assert (choice.engine, choice.precision, engine.name, engine.device) == ("openvino", "fp32", "openvino", "CPU")
    engine.close()
    assert "chose openvino fp32, the only one possible: openvino fp32; openvino bf16: the manifest gives" in caplog.text


def test_candidates_with_the_same_objection_share_a_line() -> None:
    missing = EngineUnavailable("not installed")
    candidates = [
        Candidate("onnxruntime", "fp32", 900.0),
        Candidate("openvino", "fp32", objection=missing),
        Candidate("openvino", "int8", objection=missing),
    ]
    assert in_words(candidates) == ["onnxruntime fp32 900 images/s", "openvino fp32, openvino int8: not installed"]


def test_fast_pixels_are_served_only_if_the_manifest_vouches_for_them(tiny_bundle: Path, fast_bundle: Path) -> None:
    tiny, vouching = open_bundle(tiny_bundle), open_bundle(fast_bundle)
    check_pixels(tiny, Settings())
    check_pixels(vouching, Settings(pixels="fast"))
    with pytest.raises(ConfigError, match=r"--pixels=fast: the manifest gives no accuracy.* training.quantize --fast_"):
        check_pixels(tiny, Settings(pixels="fast"))


def test_the_fake_engine_needs_no_artifact(tiny_bundle: Path) -> None:
    assert choose(open_bundle(tiny_bundle), engine="fake").engine == "fake"
