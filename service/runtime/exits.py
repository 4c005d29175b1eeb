"""Turns an error into one clear line on stderr and an exit code; only a bug shows a traceback."""

from __future__ import annotations

import logging

from models.errors import BundleError
from service.errors import (
    AddressUnavailable,
    ConfigError,
    EngineUnavailable,
    GoldenCheckFailed,
    ServiceError,
    UsageError,
)
from service.observe.logs import visible
from service.runtime.console import Console, OutputLost

# The codes of sysexits.h, and argparse's 2.
EXIT_CODES: dict[type[Exception], int] = {
    UsageError: 2,
    BundleError: 66,
    AddressUnavailable: 69,
    EngineUnavailable: 69,
    GoldenCheckFailed: 70,
    ConfigError: 78,
}
FAILURE = 1

log = logging.getLogger(__name__)


def report(error: Exception, verb: str, console: Console) -> int:
    """Print the error on stderr -> the exit code."""
    if isinstance(error, OutputLost) and error.is_pipe:
        return FAILURE  # the reader of the output, `head` for instance, has read enough
    code = next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), FAILURE)
    if code != FAILURE:
        print(visible(f"repvgg {verb}: {error}"), file=console.err)
    elif isinstance(error, ServiceError):
        print(visible(f"repvgg {verb}: stopped: {error}"), file=console.err)
    else:
        log.error("repvgg %s failed", verb, exc_info=error)
        print(visible(f"repvgg {verb}: {type(error).__name__}: {error}"), file=console.err)
    return code
