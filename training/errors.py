"""The errors that training raises, and the exit codes that its commands return for them.

TrainingError            1
├── ConfigError         78   a key, a value or a recipe is wrong
├── DataError           66   a folder or an image is missing or broken
├── CheckpointError     66   a checkpoint is missing, broken or belongs to another network
├── DeviceError         69   the device or the framework is not available
└── Stopped       130, 143   SIGINT or SIGTERM stopped the run after it was saved
"""

import argparse
import functools
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TextIO

from weights.errors import UnknownVariant, WeightsError

P = ParamSpec("P")


class TrainingError(Exception):
    exit_code = 1


class ConfigError(TrainingError):
    exit_code = 78


class DataError(TrainingError):
    exit_code = 66


class CheckpointError(TrainingError):
    exit_code = 66


class DeviceError(TrainingError):
    exit_code = 69


class Stopped(TrainingError):
    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Parser(argparse.ArgumentParser):
    """Raises OSError if the help cannot be written, which argparse ignores."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is not None and file is sys.stdout:
            print(message, end="", flush=True)
        else:
            super()._print_message(message, file)


def reporting_errors(verb: Callable[P, int]) -> Callable[P, int]:
    """Decorates a verb's `main`: a TrainingError becomes one line on stderr and its exit code.

    Text that the terminal's encoding lacks is escaped. When stdout cannot be written, the exit code is 1, without
    a message if the reader of a pipe has gone.
    """

    @functools.wraps(verb)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            code = verb(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except OSError as error:
            if not (isinstance(error, BrokenPipeError) or _is_lost(sys.stdout)):
                raise
            if not isinstance(error, BrokenPipeError):
                _report(f"error: the output cannot be written: {error.strerror}")
            # What is left in the buffer would fail again when Python flushes it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except TrainingError as error:
            _report(str(error) if isinstance(error, Stopped) else f"error: {error}")
            return error.exit_code
        except WeightsError as error:
            print(f"error: {error}", file=sys.stderr)
            return (ConfigError if isinstance(error, UnknownVariant) else DataError).exit_code
        except KeyboardInterrupt:
            _report("interrupted; all files on disk are complete, run the same command to resume")
            return 130

    return reporting


def _is_lost(stream: TextIO) -> bool:
    """Whether not even a line's end can be written."""
    try:
        print(file=stream, flush=True)
    except OSError:
        return True
    return False


def _report(line: str) -> None:
    if sys.stderr is not None:  # None if it was closed before Python started; print would write to stdout
        with suppress(OSError):  # its reader may have gone
            print(line, file=sys.stderr, flush=True)
