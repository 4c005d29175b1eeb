"""The table of engines: what each can do and where it is, known before its runtime is imported.

Adding an engine is one file in service/engines/runtimes/ and one entry here. The setting `engine`, the conformance
tests, `repvgg doctor` and the hints on how to install a runtime all follow from the entry.

The file keeps to Python 3.7 and the standard library, because an engine's own process reads it too. It lies outside
`engines` because `settings`, which must know the names, may not enter there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.manifest import Precision


@dataclass(frozen=True)
class EngineRecord:
    """`location`: `module:Class`, imported late, so that a runtime that is not used need not be installed.

    `package`: what the engine imports, "" for nothing; `extra`: of ours, installs it; `hint`: how else to install it.
    `formats`: the artifacts that it reads, the best first; none means that it needs no artifact. `precisions`: those it
    can serve -> the precision of the artifact that it computes each from. `new_batch_sizes_cost`: the first batch of a
    size takes much longer than the second, so that each size has to be warmed up. `concurrent_calls`: calls from
    several threads run side by side. `options`: further arguments of its `open` -> the settings that they come from.
    """

    location: str
    package: str = ""
    extra: str = ""
    hint: str = ""
    formats: Sequence[str] = ()
    precisions: Mapping[Precision, Precision] = field(default_factory=lambda: {"fp32": "fp32"})
    new_batch_sizes_cost: bool = False
    concurrent_calls: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def how_to_install(self) -> str:
        return self.hint or f"pip install 'repvgg[{self.extra}]'"


ENGINES = {
    "onnxruntime": EngineRecord(
        "service.engines.runtimes.onnxruntime:OnnxRuntimeEngine",
        package="onnxruntime",
        extra="onnx",
        formats=("onnx",),
        precisions={"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
        concurrent_calls=True,
        options={"provider": "engine_provider", "slots": "engine_slots"},
    ),
    "openvino": EngineRecord(
        "service.engines.runtimes.openvino:OpenVinoEngine",
        package="openvino",
        extra="openvino",
        formats=("onnx",),
        precisions={"fp32": "fp32", "bf16": "fp32", "int8": "int8"},  # bf16: the fp32 network, multiplied in bf16
        new_batch_sizes_cost=True,
        concurrent_calls=True,
        options={"slots": "engine_slots"},
    ),
    "ncnn": EngineRecord(
        "service.engines.runtimes.ncnn:NcnnEngine",
        package="ncnn",
        extra="ncnn",
        formats=("onnx",),
        concurrent_calls=True,
        options={"slots": "engine_slots"},
    ),
    "mindspore-lite": EngineRecord(
        "service.engines.runtimes.mindspore_lite:MindSporeLiteEngine",
        package="mindspore_lite",
        # The package index has it for Python 3.7 only, so no extra can install it.
        hint="python3 scripts/setup.py lite, then give --engine-python .venv-lite/bin/python",
        # Which of the first three fits the device is known when the engine is opened.
        formats=("lite-mindir", "lite-mindir-ascend310", "lite-mindir-ascend310p", "mindir"),
        precisions={"fp32": "fp32", "fp16": "fp16"},
        options={"device": "lite_device", "device_id": "lite_device_id"},
    ),
    "mindspore": EngineRecord(
        "service.engines.runtimes.mindspore:MindSporeEngine",
        package="mindspore",
        extra="train",
        formats=("mindir",),
        new_batch_sizes_cost=True,
    ),
    "fake": EngineRecord("service.engines.runtimes.fake:FakeEngine", concurrent_calls=True),
}
