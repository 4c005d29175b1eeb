"""The checks of `make check`, as tests: formatting, lint, types and the walls between packages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "layers": ["lint-imports"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_house_is_in_order(tool):
    name, *arguments = TOOLS[tool]
    done = subprocess.run(
        [Path(sys.executable).parent / name, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_serving_imports_no_training_framework():
    """Checked in a running program, not only in the import statements."""
    program = "import service.app, service.cli, service.engines.runtimes.onnxruntime, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "service.app" in modules
    assert not {"mindspore", "training", "onnx", "yaml"} & modules


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(rb"/(root|home|work|Users)/[A-Za-z0-9_.-]+")
    offenders = []
    for name in done.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and (found := home.search(path.read_bytes())):
            offenders.append(f"{name}: {found[0].decode()}")
    assert not offenders


def test_a_worker_runs_whole_modules(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> None:
    """If pytest-xdist loses our groups, each worker sets up every module's servers, and says nothing."""
    if not hasattr(pytestconfig, "workerinput"):
        pytest.skip("not run in a worker of pytest-xdist")
    assert request.node.nodeid.endswith("@test_house.py")
