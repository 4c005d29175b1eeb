"""The errors that training raises, and the exit codes that its commands return for them.

TrainingError            1
├── ConfigError         78   a key, a value or a recipe is wrong
├── DataError           66   a folder or an image is missing or broken
├── CheckpointError     66   a checkpoint is missing, broken or belongs to another network
├── DeviceError         69   the device or the framework is not available
└── Stopped       130, 143   SIGINT or SIGTERM stopped the run after it was saved
"""

import functools
import io
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

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


def reporting_errors(verb: Callable[P, int]) -> Callable[P, int]:
    """Decorates a verb's `main`: a TrainingError becomes one line on stderr and its exit code.

    Text that the terminal's encoding lacks is escaped. When the reader of a pipe has gone, the exit code is 1.
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
        except BrokenPipeError:
            # What is left in the buffer would fail again when Python flushes it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except TrainingError as error:
            print(error if isinstance(error, Stopped) else f"error: {error}", file=sys.stderr)
            return error.exit_code
        except WeightsError as error:
            print(f"error: {error}", file=sys.stderr)
            return (ConfigError if isinstance(error, UnknownVariant) else DataError).exit_code
        except KeyboardInterrupt:
            print("interrupted; all files on disk are complete, run the same command to resume", file=sys.stderr)
            return 130

    return reporting
