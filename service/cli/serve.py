"""Serve a model bundle over HTTP until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging

from service.cli.bundles import pull
from service.observe import logs
from service.runtime.console import Console
from service.runtime.listener import listen
from service.runtime.memory import memory_shortage
from service.settings import Settings, add_flags, load_settings

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flags(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Blocks. Raises whatever prevented the service from starting."""
    settings, warnings = load_settings(vars(arguments), console.environ)
    if "://" in settings.model:
        settings = settings.model_copy(
            update={"model": pull.pull_for_serving(settings.model, settings.verify_key, console)}
        )
    logs.configure(settings.log_format, console.log_stream, background=True)
    for warning in (*warnings, memory_shortage(settings), storage_notice(settings)):
        if warning:
            log.warning("%s", warning)
    with listen(settings.host, settings.port) as listener:
        if settings.workers > 1:
            from service.runtime.workers.supervisor import supervise

            return supervise(settings, listener)
        from service.runtime.server import serve  # imports the web framework

        serve(settings, listener)
    return 0


def storage_notice(settings: Settings) -> str:
    """Empty if no images are stored."""
    if not settings.keep:
        return ""
    return (
        f"IMAGES ARE STORED: all images whose answers are {settings.keep_if!r}, with these answers, in "
        f"{settings.keep}, up to {settings.keep_bytes} bytes (--keep)"
    )
