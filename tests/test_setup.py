"""The set-up script behind `make serve` and `make test`: it names what is missing, and repeats no work."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path)
    monkeypatch.setattr(module, "PYTHON", Path(sys.executable))
    return module


@pytest.mark.parametrize(
    ("which", "version", "words"),
    [
        ("serve", (3, 9, 2), "Python >= 3.10 is needed, this is 3.9"),
        ("dev", (3, 13, 0), "MindSpore needs Python 3.10 to 3.12, this is 3.13"),
    ],
)
def test_a_missing_requirement_is_named_with_its_fix(setup, monkeypatch, which, version, words):
    monkeypatch.setattr(sys, "version_info", version)
    assert words in setup.missing(which)
    assert "make PYTHON=" in setup.missing(which)


def test_nothing_is_missing_on_this_machine(setup):
    assert setup.missing("dev") is None


def test_unchanged_locks_need_no_second_set_up(setup):
    assert not setup.is_current("serve")
    setup.stamp("serve").write_text(setup.fingerprint("serve"))
    assert setup.is_current("serve")
    assert not setup.is_current("dev")


def test_the_larger_set_up_also_works_for_serving(setup):
    setup.stamp("dev").write_text(setup.fingerprint("dev"))
    assert setup.is_current("serve")


def test_changed_locks_need_a_new_set_up(setup):
    setup.stamp("serve").write_text("of older lock files")
    assert not setup.is_current("serve")


@pytest.mark.parametrize("lock", ["build", "serve", "dev", "lite", "kserve", "pull", "timm"])
def test_a_lock_file_pins_with_hashes_and_names_no_index(lock):
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    pins = [line for line in text.splitlines() if line and line[0].isalnum()]
    assert pins
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
    assert "--hash=sha256:" in text
    assert "://" not in text
    assert "--index" not in text


def test_serving_and_testing_pin_the_same_versions():
    def pins(lock):
        lines = (ROOT / "requirements" / f"{lock}.lock").read_text().splitlines()
        return {line.rstrip(" \\") for line in lines if line and line[0].isalnum()}

    assert pins("serve") <= pins("dev")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_pins_satisfy_the_declared_dependencies(python):
    linux = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    project = (ROOT / "pyproject.toml").read_text()
    declared = [
        Requirement(text) for text in re.findall(r'"(.+)",', re.search(r"(?s)\ndependencies = \[(.+?)\n\]", project)[1])
    ]
    lines = (ROOT / "requirements" / "serve.lock").read_text().splitlines()
    pins = [Requirement(line.rstrip(" \\")) for line in lines if line and line[0].isalnum()]
    pinned = {pin.name: pin.specifier for pin in pins if pin.marker is None or pin.marker.evaluate(linux)}
    assert "uvloop" in pinned
    for wanted in declared:
        (version,) = pinned[wanted.name]
        assert wanted.specifier.contains(version.version), f"{wanted} on Python {python}, but {version} is pinned"


def test_serving_needs_no_training_framework():
    assert "mindspore" not in (ROOT / "requirements" / "serve.lock").read_text()


def test_mindspore_lite_needs_a_python_37(setup, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(setup, "LITE_VENV", tmp_path / "lite")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert setup.main("lite") == 1
    assert "cannot set up .venv-lite: the package index has MindSpore Lite for Python 3.7" in capsys.readouterr().err


def test_a_pyenv_python_is_used_only_if_it_works(setup, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    for version, program in (("3.7.16", "echo 3.7"), ("3.7.17", "exit 1")):
        python = tmp_path / "versions" / version / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o755)
    assert setup.find_python37() == tmp_path / "versions" / "3.7.16" / "bin" / "python"


def test_an_unchanged_lock_needs_no_second_set_up_of_mindspore_lite(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "LITE_VENV", tmp_path)
    monkeypatch.setattr(setup, "find_python37", lambda: pytest.fail("looked for a Python"))
    (tmp_path / ".set-up").write_text(setup.LITE_LOCK.read_text())
    assert setup.main("lite") == 0


@pytest.mark.parametrize("which", ["kserve", "timm"])
def test_an_unchanged_lock_needs_no_second_set_up_apart(setup, monkeypatch, tmp_path, which):
    lock = (ROOT / "requirements" / f"{which}.lock").read_text()
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "install_apart", lambda *_: pytest.fail("installed it again"))
    for path in (tmp_path / f".venv-{which}" / ".set-up", tmp_path / "requirements" / f"{which}.lock"):
        path.parent.mkdir()
        path.write_text(lock)
    assert setup.main(which) == 0


def test_the_version_of_an_interpreter_is_found_and_a_broken_one_has_none(setup, tmp_path):
    assert setup.version_of(Path(sys.executable)) == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert setup.version_of(tmp_path / "no" / "python") is None


def test_a_stamp_without_its_interpreter_is_ignored(setup, monkeypatch, tmp_path):
    setup.stamp("serve").write_text(setup.fingerprint("serve"))
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "gone")
    assert not setup.is_current("serve")


def test_without_a_network_the_error_explains_pips_output(tmp_path):
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    nowhere = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    command = [sys.executable, "scripts/setup.py", "serve"]
    ended = subprocess.run(command, cwd=tmp_path, env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "no package index answered: check the network, the proxy" in ended.stderr.splitlines()[-1]


def test_a_lock_file_leaves_out_only_what_nothing_here_imports() -> None:
    """pip installs it without further dependencies, so it would not notice one that is missing."""
    lock = (ROOT / "requirements" / "serve.lock").read_text()
    names = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    missing = set()
    for name in names:
        try:
            wanted = [Requirement(line) for line in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:  # for another Python or platform
            continue
        needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
        missing |= {(name, one.name) for one in needed if canonicalize_name(one.name) not in names}
    assert missing == {("ncnn", "requests"), ("ncnn", "portalocker")}
