"""The table of engines. Adding one is one file beside this one, a line in each table and a row in the tests."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from models.manifest import Precision
from models.store import Bundle
from service.engines.base import Engine, EngineFactory, Options
from service.errors import ConfigError, EngineUnavailable

# name -> "module:Class", imported late: a runtime that is not used need not be installed.
ENGINES = {
    "onnxruntime": "service.engines.onnxruntime:OnnxRuntimeEngine",
    "fake": "service.engines.fake:FakeEngine",
}
# The package that an engine imports, and the extra that installs it: pip install 'repvgg[onnx]'.
PACKAGES = {"onnxruntime": "onnxruntime"}
EXTRAS = {"onnxruntime": "onnx"}


def load_engine(name: str, bundle: Bundle, precision: Precision, options: Options) -> Engine:
    """The engine `name` serving `precision`, ready to infer; blocks.

    Raises ConfigError for an unknown name, provider or precision, EngineUnavailable if its runtime is not installed
    or its device is missing, BundleError if the bundle has no artifact that fits.
    """
    factory = engine_factory(name)
    providers = factory.capabilities.providers
    if options.provider not in providers:
        raise ConfigError(f"the engine {name} has no provider {options.provider}; it has: {', '.join(providers)}")
    return factory.open(bundle, precision, options)


def engine_factory(name: str) -> EngineFactory:
    """Imports the engine's runtime. Raises ConfigError for an unknown name, EngineUnavailable."""
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; known: auto, {', '.join(ENGINES)}")
    if not is_installed(name):
        raise EngineUnavailable(_how_to_install(name, "is not installed"))
    module, _, class_name = ENGINES[name].partition(":")
    try:
        return cast(EngineFactory, getattr(import_module(module), class_name))
    except ImportError as error:
        raise EngineUnavailable(_how_to_install(name, f"cannot be imported ({error})")) from error


def is_installed(name: str) -> bool:
    """Is the engine's package there? Nothing is imported."""
    return name not in PACKAGES or find_spec(PACKAGES[name]) is not None


def _how_to_install(name: str, what: str) -> str:
    return f"the engine {name} {what}; install it: pip install 'repvgg[{EXTRAS[name]}]'"
