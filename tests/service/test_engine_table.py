"""The table of engines, and what follows from it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from service.engine_table import ENGINES
from service.errors import ConfigError
from service.settings import allowed, load_settings


def test_every_record_is_complete() -> None:
    for name, record in ENGINES.items():
        module, _, class_name = record.location.partition(":")
        assert class_name.endswith("Engine"), name
        assert find_spec(module), name
        assert bool(record.package) == bool(record.extra or record.hint) == bool(record.formats), name
    assert [name for name, record in ENGINES.items() if not record.formats] == ["fake"]


def test_the_setting_offers_exactly_the_engines_of_the_table() -> None:
    wanted = "one of auto, onnxruntime, openvino, ncnn, mindspore-lite, mindspore, fake"
    assert allowed("engine") == wanted == f"one of auto, {', '.join(ENGINES)}"
    with pytest.raises(ConfigError, match=f"^REPVGG_ENGINE=torch is invalid: it must be {wanted}$"):
        load_settings({}, {"REPVGG_ENGINE": "torch"})


def test_importing_the_table_imports_no_runtime() -> None:
    packages = {record.package for record in ENGINES.values()} - {""}
    code = f"import sys, service.classify.classifier; print(sys.modules.keys() & {packages})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
