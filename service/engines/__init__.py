"""The table of engines. Adding one is one file beside this one, one line in ENGINES and one row in the tests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import cast

from models.manifest import Precision
from models.store import Bundle
from service.engines.base import Engine, EngineFactory
from service.engines.check import check_engine
from service.engines.process import Order
from service.engines.worker import HostedEngine
from service.errors import ConfigError, EngineUnavailable

# name -> "module:Class", imported late: a runtime that is not used need not be installed.
ENGINES = {
    "onnxruntime": "service.engines.onnxruntime:OnnxRuntimeEngine",
    "mindspore-lite": "service.engines.mindspore_lite:MindSporeLiteEngine",
    "fake": "service.engines.fake:FakeEngine",
}
# The extra that installs an engine's runtime: pip install 'repvgg[onnx]'.
EXTRAS = {"onnxruntime": "onnx"}
# Where that is not enough: the package index has MindSpore Lite for Python 3.7 only.
HINTS = {"mindspore-lite": "python3 scripts/setup.py lite, then give --engine-python .venv-lite/bin/python"}
AUTO_ENGINE = "onnxruntime"
AUTO_PRECISION: Precision = "fp32"


def load_engine(
    name: str,
    bundle: Bundle,
    precision: str,
    threads: int,
    *,
    python: str = "",
    options: Mapping[str, str | int] | None = None,
) -> Engine:
    """The engine `name` (or `auto`) with the bundle's artifact of `precision` (or `auto`), ready to infer; blocks.

    With `python`, an interpreter, in a process of its own. `options` are further arguments of the engine's `open`.

    Raises ConfigError for an unknown name or interpreter, EngineUnavailable if its runtime is not installed or its
    device is missing, BundleError if the bundle has no artifact that fits.
    """
    name = AUTO_ENGINE if name == "auto" else name
    chosen = AUTO_PRECISION if precision == "auto" else cast(Precision, precision)
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; known: auto, {', '.join(ENGINES)}")
    if python:
        order = Order(ENGINES[name], str(bundle.folder.resolve()), chosen, threads, options or {})
        return HostedEngine.open(python, order, partial(check_engine, bundle=bundle))
    return _factory(name).open(bundle, chosen, threads, **(options or {}))


def _factory(name: str) -> EngineFactory:
    module, _, class_name = ENGINES[name].partition(":")
    try:
        return cast(EngineFactory, getattr(import_module(module), class_name))
    except ImportError as error:
        way_out = HINTS.get(name) or f"pip install 'repvgg[{EXTRAS[name]}]'"
        raise EngineUnavailable(f"the engine {name} cannot be imported ({error}); install it: {way_out}") from error
