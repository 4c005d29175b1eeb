"""The client can be installed without the server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import repvgg_client

PACKAGE = Path(repvgg_client.__file__).parent
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
LOOK = "import repvgg_client, sys; print(repvgg_client.__file__); print(*sys.modules)"


def test_the_client_is_its_own_distribution_and_needs_only_httpx(tmp_path: Path) -> None:
    source = shutil.copytree(PACKAGE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=source, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "site")
    (metadata,) = (tmp_path / "site").glob("*.dist-info/METADATA")
    needed = [line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")]
    assert [line for line in needed if "extra ==" not in line] == ["Requires-Dist: httpx>=0.28"]

    found = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    )
    place, modules = found.stdout.splitlines()
    assert Path(place) == tmp_path / "site" / "repvgg_client" / "__init__.py"
    assert not {"models", "service", "fastapi", "numpy", "PIL"} & set(modules.split())


def test_the_two_distributions_agree() -> None:
    own, whole = (folder.joinpath("pyproject.toml").read_text() for folder in (PACKAGE, PACKAGE.parent))
    assert 'dependencies = ["httpx>=0.28"]' in own
    assert 'client = ["httpx>=0.28"]' in whole
    for line in ('version = "', 'requires-python = "', 'license = "'):
        assert [x for x in own.splitlines() if x.startswith(line)] == [
            x for x in whole.splitlines() if x.startswith(line)
        ]
