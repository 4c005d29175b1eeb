"""What each engine can do, known before its runtime is imported.

Like the engine files this one keeps to Python 3.7 and the standard library: an engine's own process reads it too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.errors import BundleError
from service.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.manifest import Artifact, Precision
    from models.store import Bundle

    # A network's input or output: its name, numpy's name of its type, its shape ("N" for any number).
    Tensor = tuple[str, str, Sequence[int | str]]


@dataclass(frozen=True)
class Capabilities:
    """`formats`: the artifacts that it reads, the best first. `precisions`: what it can serve -> the precision of the
    artifact that it computes this from. `new_batch_sizes_cost`: the first batch of a size takes much longer than the
    second, so that each size has to be warmed up. `calls_at_once`: calls from several threads run side by side.
    """

    formats: Sequence[str] = ()
    precisions: Mapping[Precision, Precision] = field(default_factory=lambda: {"fp32": "fp32"})
    new_batch_sizes_cost: bool = False
    calls_at_once: bool = False


CAPABILITIES = {
    "onnxruntime": Capabilities(("onnx",), {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}, calls_at_once=True),
    # bf16 is the fp32 network, multiplied in bf16.
    "openvino": Capabilities(
        ("onnx",), {"fp32": "fp32", "bf16": "fp32", "int8": "int8"}, new_batch_sizes_cost=True, calls_at_once=True
    ),
    "mindspore": Capabilities(("mindir",), new_batch_sizes_cost=True),
    # Which of the first three is the device's is known when it is opened.
    "mindspore-lite": Capabilities(
        ("lite-mindir", "lite-mindir-ascend310", "lite-mindir-ascend310p", "mindir"), {"fp32": "fp32", "fp16": "fp16"}
    ),
    "fake": Capabilities(calls_at_once=True),
}


def choose_artifact(engine: str, bundle: Bundle, precision: Precision) -> Artifact:
    """What `engine` serves `precision` from.

    Raises ConfigError for a precision that the engine has not, BundleError for an artifact that the bundle has not.
    """
    able = CAPABILITIES[engine]
    if precision not in able.precisions:
        raise ConfigError(f"the engine {engine} has no precision {precision}; it has: {', '.join(able.precisions)}")
    return bundle.artifact(able.formats, able.precisions[precision])


def has_artifact(engine: str, bundle: Bundle, precision: Precision) -> bool:
    try:
        choose_artifact(engine, bundle, precision)
    except (ConfigError, BundleError):
        return False
    return True


def check_tensors(what: str, found: Sequence[Tensor], name: str, image_shape: Sequence[int]) -> None:
    """One tensor, with the manifest's name, float32, any number of images of this shape; else BundleError."""
    wanted = (name, "float32", ["N", *image_shape])
    if list(found) != [wanted]:
        raise BundleError(f"{what} is {list(found)}; the manifest wants {wanted}")
