"""Which artifact of a bundle an engine serves, and whether the artifact's tensors are those of the manifest.

Engine files import this one, so it keeps to Python 3.7 and the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import BundleError
from service.engine_table import ENGINES
from service.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.manifest import Artifact, Precision
    from models.store import Bundle

    # A network's input or output: its name, numpy's name of its type, its shape ("N" for any number).
    Tensor = tuple[str, str, Sequence[int | str]]


def choose_artifact(engine: str, bundle: Bundle, precision: Precision) -> Artifact:
    """The artifact from which `engine` serves `precision`.

    Raises ConfigError if the engine does not support the precision, BundleError if the bundle has no such artifact.
    """
    record = ENGINES[engine]
    if precision not in record.precisions:
        raise ConfigError(
            f"the engine {engine} does not support precision {precision}; it supports: {', '.join(record.precisions)}"
        )
    return bundle.artifact(record.formats, record.precisions[precision])


def has_artifact(engine: str, bundle: Bundle, precision: Precision) -> bool:
    try:
        choose_artifact(engine, bundle, precision)
    except (ConfigError, BundleError):
        return False
    return True


def check_outputs(what: str, found: Sequence[Tensor], artifact: Artifact, classes: int) -> bool:
    """The outputs must be the manifest's: the logits and, where it names them, the features; else BundleError.

    -> whether there are features.
    """
    features = getattr(artifact, "features", None)  # missing from older manifests, as a hosted engine reads them
    check_tensors(what, found[: 1 if features else None], artifact.output, [classes])
    kinds = [(name, dtype, len(shape)) for name, dtype, shape in found[1:]]
    if features and kinds != [(features.output, "float32", 4)]:
        raise BundleError(f"{what} is {list(found)}; the manifest wants a second one {features.output} (N, C, h, w)")
    return features is not None


def check_tensors(what: str, found: Sequence[Tensor], name: str, image_shape: Sequence[int]) -> None:
    """`found` must be one tensor with the manifest's `name`, float32, any number of this shape; else BundleError."""
    wanted = (name, "float32", ["N", *image_shape])
    if list(found) != [wanted]:
        raise BundleError(f"{what} is {list(found)}; the manifest wants {wanted}")
