"""Log lines: one JSON object each, or readable text. The web server's own loggers are included.

1. one line per record, whatever its content: JSON escapes line breaks;
2. what a caller passes as `extra` becomes fields of the object;
3. a value that JSON cannot represent is written as text;
4. readable text is aligned, repeats nothing, and is coloured only on a terminal, unless NO_COLOR is set.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
from datetime import datetime, timezone
from functools import partial
from typing import Any, Literal, TextIO

# The attributes of every record; any others were passed as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
# Escape sequences of ECMA-48.
_PLAIN, _DIM = "\033[0m", "\033[2m"
_COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31m"}
MESSAGE_WIDTH = 32
_SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def visible(text: str) -> str:
    """With escapes for everything that is not printable: what moves a cursor, begins a line or turns the text."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _timestamp(record: logging.LogRecord) -> str:
    """UTC, milliseconds: 2026-01-31T12:00:00.123Z."""
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """`ts, level, logger, msg`, the extra fields, and `error` (a traceback) or `stack` if there is one."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__()
        self._ascii_only = ascii_only

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return json.dumps(fields, default=str, ensure_ascii=self._ascii_only)


class ConsoleFormatter(logging.Formatter):
    """`12:00:00.123 INFO    batching       text                 name=value`, then the traceback.

    A request's path can contain anything: characters that move the cursor or start another line are escaped.
    """

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).isoformat(sep=" ", timespec="milliseconds")[11:]
        level = self._in(_COLOURS.get(record.levelno, ""), f"{record.levelname:<7}")
        name = record.name.rpartition(".")[2] if record.name.startswith("service.") else record.name
        head = f"{self._in(_DIM, moment)} {level} {name:<14}"
        fields = " ".join(f"{name}={value}" for name, value in _not_in_message(record).items())
        message = visible(record.getMessage())
        line = f"{head} {message:<{MESSAGE_WIDTH}} {self._in(_DIM, visible(fields))}".rstrip()
        traceback = self.formatException(record.exc_info) if record.exc_info else None
        return "\n".join(part for part in (line, traceback, record.stack_info) if part)

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured and colour and text else text


def _not_in_message(record: logging.LogRecord) -> dict[str, Any]:
    """The extra fields whose values are not arguments of the message already."""
    mentioned = list(record.args) if isinstance(record.args, tuple) else []
    missing = {}
    for name, value in _extra(record).items():
        if value in mentioned:
            mentioned.remove(value)
        else:
            missing[name] = value
    return missing


def _add_worker(number: int, record: logging.LogRecord) -> bool:
    record.worker = number
    return True


def is_utf8(stream: TextIO) -> bool:
    """In another encoding, JSON is to be ASCII."""
    return codecs.lookup(stream.encoding or "utf-8").name == "utf-8"


def _has_colours(stream: TextIO) -> bool:
    """NO_COLOR: see no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def configure(
    log_format: Literal["json", "console"], stream: TextIO, level: int = logging.INFO, worker: int | None = None
) -> None:
    """Send everything from `level` up to `stream`, and nowhere else. A second call replaces the first.

    `worker`: the number of this worker process, which is added to every line.
    """
    output = logging.StreamHandler(stream)
    if worker is not None:
        output.addFilter(partial(_add_worker, worker))
    output.setFormatter(
        JsonFormatter(ascii_only=not is_utf8(stream))
        if log_format == "json"
        else ConsoleFormatter(coloured=_has_colours(stream))
    )
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level)
    for name in _SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
