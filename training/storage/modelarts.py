"""ModelArts keeps folders at obs:// and s3:// addresses: they are copied in before a run, and out after each epoch.

1. each machine copies a folder once: the first process does it, the others wait;
2. a half-copied folder is never used;
3. without moxing, which exists on ModelArts only, an address is an error that says what to do.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from training.errors import DeviceError, TrainingError


def local_folder(url: str, cache_dir: Path) -> Path:
    """Folder or address -> the folder, or its copy in `cache_dir`. Raises TrainingError."""
    if not _is_remote(url):
        return Path(url)
    folder = cache_dir / quote(url.split("://")[1].rstrip("/"), safe="")  # a separate name for each address
    _copy_in(url, folder)
    return folder


def fetch_run(url: str, run_dir: Path) -> None:
    """Copy the run that an earlier job saved at `url` to `run_dir`, unless that exists. Raises TrainingError."""
    kept = _run_at(url, run_dir)
    exists = _moxing().file.exists if _is_remote(kept) else _is_folder
    with _explaining(f"{kept} cannot be looked up"):
        found = exists(kept)
    if found:
        _copy_in(kept, run_dir)


def keep_run(run_dir: Path, url: str) -> None:
    """Copy all of `run_dir` to a folder of the same name at `url`. Raises TrainingError."""
    kept = _run_at(url, run_dir)
    copy = _copier(kept)
    with _explaining(f"{run_dir} cannot be copied to {kept}"):
        copy(str(run_dir), kept)


def _run_at(url: str, run_dir: Path) -> str:
    return f"{url.rstrip('/')}/{run_dir.name}"


def _is_remote(url: str) -> bool:
    return url.startswith(("obs://", "s3://"))


def _copy_in(url: str, folder: Path) -> None:
    """Only one process of the machine copies. A lock, unlike a marker file, disappears when its process dies."""
    copy, half = _copier(url), folder.with_name(f".{folder.name}.half")
    with _explaining(f"{url} cannot be copied to {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f".{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return
            print(f"copying {url} to {folder}", flush=True)
            shutil.rmtree(half, ignore_errors=True)
            copy(url, str(half))
            if not half.is_dir():
                raise FileNotFoundError("there is no such folder")
            half.replace(folder)


def _copier(url: str) -> Callable[[str, str], object]:
    """Copies the content of a folder from or to `url`, and creates the target where it is missing."""
    return _moxing().file.copy_parallel if _is_remote(url) else _copy_tree


def _is_folder(path: str) -> bool:
    return Path(path).is_dir()


def _copy_tree(source: str, target: str) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


@contextmanager
def _explaining(problem: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # moxing documents no base class for its errors
        raise TrainingError(f"{problem}: {error}") from error


def _moxing() -> Any:
    try:
        import moxing
    except ImportError as error:
        raise DeviceError(
            f"obs:// and s3:// need moxing, which only ModelArts has ({error}): "
            "copy the data to this machine and give a local folder"
        ) from error
    return moxing
