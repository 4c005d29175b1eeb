from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.manifest import Manifest
from models.store import Bundle, open_bundle


@pytest.fixture
def rebuilt(tmp_path: Path, tiny_bundle: Path) -> Callable[..., Bundle]:
    """`rebuilt(content, **fields)` -> the tiny bundle with another network file and changed fields of its artifact."""

    def rebuild(content: bytes, **artifact: Any) -> Bundle:
        folder = tmp_path / "rebuilt"
        shutil.copytree(tiny_bundle, folder)
        (folder / "tiny.onnx").write_bytes(content)
        manifest = open_bundle(tiny_bundle).manifest
        changed = manifest.artifacts[0].model_copy(update={"sha256": hashlib.sha256(content).hexdigest(), **artifact})
        text = manifest.model_copy(update={"artifacts": [changed]}).to_json()
        (folder / "manifest.json").write_text(Manifest.from_json(text).to_json())
        return open_bundle(folder)

    return rebuild
