"""Set up .venv for `make serve` (service dependencies only) or `make test` (everything), .venv-lite for `lite`,
.venv-kserve for `kserve`, or .venv-timm for `timm`, which `make test` leaves out: it is large.

Needs only Python >= 3.10 with pip, and for MindSpore Lite also a Python 3.7. Installs from the lock files, with hashes.
Does nothing if the lock files have not changed since the last time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# The lock files of each set-up. `dev` contains the pins of `serve`, so it works for both.
LOCKS = {"serve": ("build", "serve"), "dev": ("build", "dev")}
# The package index has MindSpore Lite only for CPython 3.7, so it gets its own environment.
LITE_VENV = ROOT / ".venv-lite"
LITE_LOCK = ROOT / "requirements" / "lite.lock"
# The KServe client needs other versions of packages that .venv has, and timm needs PyTorch.
APART = {"kserve": "about 75 MB", "timm": "about 2.7 GB"}
# A lock file is complete. It leaves out dependencies that nothing here imports, which pip would insist on.
FROM_LOCK = ("--no-deps", "--require-hashes", "--requirement")
DOWNLOADS = {"serve": "about 65 MB", "dev": "about 0.9 GB"}


def main(which: str) -> int:
    if which == "lite":
        return set_up_lite()
    if which in APART:
        return set_up_apart(which)
    refusal = missing(which)
    if refusal:
        print(f"cannot set up .venv: {refusal}", file=sys.stderr)
        return 1
    if is_current(which):
        return 0
    print(f"setting up .venv ({which}): downloads {DOWNLOADS[which]} the first time", flush=True)
    if version_of(PYTHON) != version_of(Path(sys.executable)):
        create_venv()
    for lock in LOCKS[which]:
        pip(*FROM_LOCK, str(ROOT / "requirements" / f"{lock}.lock"))
    pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp(which).write_text(fingerprint(which))
    return 0


def set_up_lite() -> int:
    if is_set_up(LITE_VENV, LITE_LOCK):
        return 0
    python37 = find_python37()
    if python37 is None:
        print(
            "cannot set up .venv-lite: the package index has MindSpore Lite for Python 3.7 only, and there is no "
            "python3.7 in PATH or pyenv; install one: pyenv install 3.7",
            file=sys.stderr,
        )
        return 1
    print("setting up .venv-lite: downloads about 185 MB the first time", flush=True)
    subprocess.run([str(python37), "-m", "venv", "--clear", str(LITE_VENV)], check=True)
    install_apart([str(LITE_VENV / "bin" / "python"), "-m", "pip"], LITE_VENV, LITE_LOCK)
    return 0


def set_up_apart(which: str) -> int:
    venv, lock = ROOT / f".venv-{which}", ROOT / "requirements" / f"{which}.lock"
    if is_set_up(venv, lock):
        return 0
    print(f"setting up {venv.name}: downloads {APART[which]} the first time", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)], check=True)
    install_apart([sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")], venv, lock)
    return 0


def is_set_up(venv: Path, lock: Path) -> bool:
    done = venv / ".set-up"
    return done.is_file() and done.read_text() == lock.read_text()


def install_apart(pip_command: list[str], venv: Path, lock: Path) -> None:
    """Install a lock file into its own environment and mark it as set up."""
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"]
    subprocess.run([*pip_command, *install, *FROM_LOCK, str(lock)], check=True)
    (venv / ".set-up").write_text(lock.read_text())


def find_python37() -> Path | None:
    """From PATH, or from pyenv: pyenv's own python3.7 shim in PATH may not work."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [Path(shutil.which("python3.7") or ""), *sorted(pyenv.glob("versions/3.7.*/bin/python"), reverse=True)]
    return next((python for python in found if version_of(python) == "3.7"), None)


def missing(which: str) -> str | None:
    """What this machine lacks and how to get it; None if nothing."""
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < (3, 10):  # noqa: UP036  # pip would fail with a less clear message
        return f"Python >= 3.10 is needed, this is {version}; use another one: make PYTHON=python3.11"
    if which == "dev" and sys.version_info >= (3, 13):
        return f"MindSpore needs Python 3.10 to 3.12, this is {version}; use another one: make PYTHON=python3.11 test"
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        return "pip is missing; on Debian: apt install python3-pip"
    return None


def version_of(python: Path) -> str | None:
    """For instance `3.11`; None if the interpreter is missing or no longer works."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run([python, "-c", program], capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def create_venv() -> None:
    """With its own pip if possible; on Debian that needs python3-venv, and we can do without."""
    whole = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, check=False)
    if whole.returncode:
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)], check=True)


def pip(*arguments: str) -> None:
    own = subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    command = [str(PYTHON), "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    subprocess.run(
        [*command, "install", "--quiet", "--disable-pip-version-check", "--no-input", *arguments], check=True
    )


def stamp(which: str) -> Path:
    return VENV / f".set-up-{which}"


def fingerprint(which: str) -> str:
    files = [ROOT / "pyproject.toml", *(ROOT / "requirements" / f"{lock}.lock" for lock in LOCKS[which])]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def is_current(which: str) -> bool:
    """Whether this set-up, or the larger one, was made from the current lock files."""
    return PYTHON.exists() and any(
        stamp(done).is_file() and stamp(done).read_text() == fingerprint(done) for done in dict.fromkeys((which, "dev"))
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"set-up failed: `{' '.join(error.cmd)}` failed, see its output above; `from versions: none` means that no "
            "package index answered: check the network, the proxy (HTTPS_PROXY) and the index (PIP_INDEX_URL)"
        )
