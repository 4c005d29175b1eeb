"""The table of engines. Adding one is one file beside this one, one line in ENGINES and one row in the tests."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from models.manifest import Precision
from models.store import Bundle
from service.engines.base import Engine, EngineFactory
from service.errors import ConfigError, EngineUnavailable

# name -> "module:Class", imported late: a runtime that is not used need not be installed.
ENGINES = {
    "onnxruntime": "service.engines.onnxruntime:OnnxRuntimeEngine",
    "fake": "service.engines.fake:FakeEngine",
}
# The extra that installs an engine's runtime: pip install 'repvgg[onnx]'.
EXTRAS = {"onnxruntime": "onnx"}
AUTO_ENGINE = "onnxruntime"
AUTO_PRECISION: Precision = "fp32"


def load_engine(name: str, bundle: Bundle, precision: str, threads: int) -> Engine:
    """The engine `name` (or `auto`) with the bundle's artifact of `precision` (or `auto`), ready to infer; blocks.

    Raises ConfigError for an unknown name, EngineUnavailable if its runtime is not installed or its device is
    missing, BundleError if the bundle has no artifact that fits.
    """
    factory = _factory(AUTO_ENGINE if name == "auto" else name)
    return factory.open(bundle, AUTO_PRECISION if precision == "auto" else cast(Precision, precision), threads)


def _factory(name: str) -> EngineFactory:
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; known: auto, {', '.join(ENGINES)}")
    module, _, class_name = ENGINES[name].partition(":")
    try:
        return cast(EngineFactory, getattr(import_module(module), class_name))
    except ImportError as error:
        raise EngineUnavailable(
            f"the engine {name} cannot be imported ({error}); install it: pip install 'repvgg[{EXTRAS[name]}]'"
        ) from error
