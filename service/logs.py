"""Log lines: one JSON object each, or text for people. The web server's own loggers go the same way.

1. one line a record, whatever is in it: line breaks are escaped in JSON;
2. what a caller gives as `extra` becomes fields of the object;
3. a value that JSON cannot hold is written as text.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from functools import partial
from typing import Any, Literal, TextIO

# What every record has; the rest of its attributes came as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _timestamp(record: logging.LogRecord) -> str:
    """UTC, milliseconds: 2026-01-31T12:00:00.123Z."""
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """`ts, level, logger, msg`, the extra fields, and `error` with the traceback if there is one."""

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
        return json.dumps(fields, default=str, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """`12:00:00 INFO    service.batching: text name=value`, then the traceback.

    A request's path may hold anything: what would move a terminal's cursor, or begin another line, is escaped.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = "".join(f" {name}={value}" for name, value in _extra(record).items())
        line = f"{moment} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}".translate(_VISIBLE)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _add_worker(number: int, record: logging.LogRecord) -> bool:
    record.worker = number
    return True


def configure(
    log_format: Literal["json", "console"], stream: TextIO, level: int = logging.INFO, worker: int | None = None
) -> None:
    """Everything of `level` and above goes to `stream`, and only there. Called again, it starts afresh.

    `worker`: the number of this one of several processes, which every line then carries.
    """
    output = logging.StreamHandler(stream)
    if worker is not None:
        output.addFilter(partial(_add_worker, worker))
    output.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level)
    for name in _SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
