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
from service.runtime.console import Console

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
    code = next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), FAILURE)
    if code != FAILURE:
        print(f"repvgg {verb}: {error}", file=console.err)
    elif isinstance(error, ServiceError):
        print(f"repvgg {verb}: stopped: {error}", file=console.err)
    else:
        log.error("repvgg %s failed", verb, exc_info=error)
        print(f"repvgg {verb}: {type(error).__name__}: {error}", file=console.err)
    return code
