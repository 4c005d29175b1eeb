"""The table of engines. Adding one is one file beside this one, a line in each table here and its capabilities, which
are its rows in the conformance tests."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from models.manifest import Precision
from models.store import Bundle
from service.engines.base import Engine, EngineFactory
from service.engines.check import check_engine
from service.engines.hosted.engine import HostedEngine
from service.engines.hosted.process import Order
from service.errors import ConfigError, EngineUnavailable
from service.machine.priority import give_way

# name -> "module:Class", imported late: a runtime that is not used need not be installed.
ENGINES = {
    "onnxruntime": "service.engines.runtimes.onnxruntime:OnnxRuntimeEngine",
    "openvino": "service.engines.runtimes.openvino:OpenVinoEngine",
    "mindspore": "service.engines.runtimes.mindspore:MindSporeEngine",
    "mindspore-lite": "service.engines.runtimes.mindspore_lite:MindSporeLiteEngine",
    "fake": "service.engines.runtimes.fake:FakeEngine",
}
# The package that an engine imports, and the extra that installs it: pip install 'repvgg[onnx]'.
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "mindspore": "mindspore",
    "mindspore-lite": "mindspore_lite",
}
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino", "mindspore": "train"}
# What no extra installs: the package index has MindSpore Lite for Python 3.7 only.
HINTS = {"mindspore-lite": "python3 scripts/setup.py lite, then give --engine-python .venv-lite/bin/python"}


def load_engine(
    name: str,
    bundle: Bundle,
    precision: Precision,
    threads: int,
    *,
    python: str = "",
    options: Mapping[str, str | int] | None = None,
) -> Engine:
    """The engine `name` serving `precision`, ready to infer; blocks. `options` are further arguments of its `open`.

    With `python`, an interpreter, in a process of its own.

    Raises ConfigError for an unknown name or interpreter, or a precision that it has not, EngineUnavailable if its
    runtime is not installed or its device is missing, BundleError if the bundle has no artifact that fits.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; known: auto, {', '.join(ENGINES)}")
    if python:
        order = Order(ENGINES[name], str(bundle.folder.resolve()), precision, threads, options or {})
        return HostedEngine.open(python, order, partial(check_engine, bundle=bundle))
    # In a thread that gives way, as then the runtime's own threads do.
    with ThreadPoolExecutor(1, initializer=give_way) as opener:
        return opener.submit(_factory(name).open, bundle, precision, threads, **(options or {})).result()


def is_installed(name: str) -> bool:
    """Is the engine's package there? Nothing is imported."""
    return name not in PACKAGES or find_spec(PACKAGES[name]) is not None


def how_to_install(name: str) -> str:
    return HINTS.get(name) or f"pip install 'repvgg[{EXTRAS[name]}]'"


def _factory(name: str) -> EngineFactory:
    module, _, class_name = ENGINES[name].partition(":")
    try:
        return cast(EngineFactory, getattr(import_module(module), class_name))
    except ImportError as error:
        raise EngineUnavailable(
            f"the engine {name} cannot be imported ({error}); install it: {how_to_install(name)}"
        ) from error
