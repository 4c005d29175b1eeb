"""Verbs of training that need MindSpore, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STOPPING_S = 45.0  # until a run that was told to stop is killed


def run_verb(verb: str, flags: Sequence[str | Path], seconds: float | None, log: Path) -> str:
    """Run a verb of training; after `seconds` or Ctrl-C it is told to stop -> what went wrong, or nothing."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    command = [sys.executable, "-m", f"training.{verb}", *map(str, flags)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": path}, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            return f"ended with status {code}" if code else ""
        except subprocess.TimeoutExpired:
            return _stop(process, "was stopped at the end of its time")
        except KeyboardInterrupt:
            return _stop(process, "was interrupted")


def last_words(log: Path) -> str:
    """The last output of a verb: for a failed one, the reason."""
    lines = log.read_text(errors="replace").split("error: ")[-1].strip().splitlines()
    return lines[0] if lines else "no output"


def _stop(process: subprocess.Popen[bytes], why: str) -> str:
    process.terminate()  # it finishes its step; SIGINT would be ignored if the shell runs this in the background
    try:
        process.wait(STOPPING_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    return why
