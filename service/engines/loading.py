"""Opens an engine by its name: in this process, or in one of its own."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from models.manifest import Precision
from models.store import Bundle
from service.engine_table import ENGINES
from service.engines.base import Engine, EngineFactory
from service.engines.check import check_engine
from service.engines.hosted.parent import open_hosted
from service.engines.hosted.protocol import Order
from service.errors import ConfigError, EngineUnavailable
from service.machine.priority import lower_priority


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

    With `python`, the path of an interpreter, in a process of its own.

    Raises ConfigError for an unknown name or interpreter or an unsupported precision, EngineUnavailable if the runtime
    is not installed or its device is missing, BundleError if the bundle has no artifact that fits.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; known: auto, {', '.join(ENGINES)}")
    if python:
        order = Order(ENGINES[name].location, str(bundle.folder.resolve()), precision, threads, options or {})
        return open_hosted(python, order, partial(check_engine, bundle=bundle))
    # In a thread of low priority, which the runtime's own threads inherit.
    with ThreadPoolExecutor(1, initializer=lower_priority) as opener:
        return opener.submit(_factory(name).open, bundle, precision, threads, **(options or {})).result()


def is_installed(name: str) -> bool:
    """Is the engine's package there? Nothing is imported."""
    package = ENGINES[name].package
    return not package or find_spec(package) is not None


def _factory(name: str) -> EngineFactory:
    record = ENGINES[name]
    module, _, class_name = record.location.partition(":")
    try:
        return cast(EngineFactory, getattr(import_module(module), class_name))
    except ImportError as error:
        raise EngineUnavailable(
            f"the engine {name} cannot be imported ({error}); install it: {record.how_to_install}"
        ) from error
