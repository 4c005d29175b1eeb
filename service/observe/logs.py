"""Log lines: one JSON object each, or readable text. The web server's own loggers are included.

1. one line per record, whatever its content: every control and format character, line separator and lone surrogate is
   escaped, and a traceback in readable text is indented;
2. what a caller passes as `extra` becomes fields of the object;
3. a value that JSON cannot represent is written as text;
4. readable text is aligned, repeats nothing, and is coloured only on a terminal, unless NO_COLOR is set;
5. lines are bounded: long texts keep their beginning and their end.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
from abc import ABC, abstractmethod
from datetime import datetime, timezone
from functools import partial
from typing import Any, Literal, TextIO

from service.observe.log_writer import BackgroundHandler

# The attributes of every record; any others were passed as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
# Escape sequences of ECMA-48.
_PLAIN, _DIM = "\033[0m", "\033[2m"
_COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31m"}
MESSAGE_WIDTH = 32
# Characters, before they are escaped; and of a whole line, for which texts are cut shorter if need be.
MOST_TEXT, MOST_TRACE = 1000, 8000
MOST_LINE = 16_384
CUTS = (1, 8, 64)
_SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def visible(text: str) -> str:
    """With escapes for everything that is not printable: what moves a cursor, begins a line or turns the text."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 1 << 8:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def _visible_json(text: str) -> str:
    """The same for the text of a JSON value, with the escapes of JSON: all of these characters are inside strings."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _shorten(text: str, most: int) -> str:
    """To about `most` characters: what matters may be at either end."""
    if len(text) <= most:
        return text
    end = most // 2
    return f"{text[:end]}... {len(text) - 2 * end} characters left out ...{text[-end:]}"


def _bound(value: Any, most: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _shorten(value, most)
    return value if len(json.dumps(value, default=str)) <= MOST_LINE // 2 else _shorten(str(value), most)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _timestamp(record: logging.LogRecord) -> str:
    """UTC, milliseconds: 2026-01-31T12:00:00.123Z."""
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Bounded(logging.Formatter, ABC):
    def format(self, record: logging.LogRecord) -> str:
        line = ""
        for cut in CUTS:
            line = self._line(record, MOST_TEXT // cut, MOST_TRACE // cut)
            if len(line) <= MOST_LINE:
                break
        return line

    @abstractmethod
    def _line(self, record: logging.LogRecord, most_text: int, most_trace: int) -> str: ...

    def _traces(self, record: logging.LogRecord, most: int) -> dict[str, str]:
        """Its traceback and its stack, if it has them."""
        error = self.formatException(record.exc_info) if record.exc_info else None
        return {name: _shorten(text, most) for name, text in (("error", error), ("stack", record.stack_info)) if text}


class JsonFormatter(_Bounded):
    """`ts, level, logger, msg`, the extra fields, and `error` (a traceback) or `stack` if there is one."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__()
        self._encode = json.JSONEncoder(default=str, ensure_ascii=ascii_only).encode

    def _line(self, record: logging.LogRecord, most_text: int, most_trace: int) -> str:
        fields: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": _shorten(record.getMessage(), most_text),
            **{name: _bound(value, most_text) for name, value in _extra(record).items()},
            **self._traces(record, most_trace),
        }
        return _visible_json(self._encode(fields))


class ConsoleFormatter(_Bounded):
    """`12:00:00.123 INFO    batching       text                 name=value`, then the traceback, indented."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def _line(self, record: logging.LogRecord, most_text: int, most_trace: int) -> str:
        moment = datetime.fromtimestamp(record.created).isoformat(sep=" ", timespec="milliseconds")[11:]
        level = self._in(_COLOURS.get(record.levelno, ""), f"{record.levelname:<7}")
        name = record.name.rpartition(".")[2] if record.name.startswith("service.") else record.name
        head = f"{self._in(_DIM, moment)} {level} {name:<14}"
        missing = _not_in_message(record).items()
        fields = " ".join(f"{name}={_bound(value, most_text)}" for name, value in missing)
        message = visible(_shorten(record.getMessage(), most_text))
        line = f"{head} {message:<{MESSAGE_WIDTH}} {self._in(_DIM, visible(fields))}".rstrip()
        traces = "\n".join(self._traces(record, most_trace).values())
        return "\n".join([line, *(f"  {visible(part)}" for part in traces.split("\n") if part)])

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
    log_format: Literal["json", "console"],
    stream: TextIO,
    level: int = logging.INFO,
    worker: int | None = None,
    *,
    background: bool = False,
) -> None:
    """Send everything from `level` up to `stream`, and nowhere else. A second call replaces the first.

    `worker`: the number of this worker process, which is added to every line. `background`: never wait for the reader
    of `stream`, as `log_writer` describes.
    """
    output = _background(stream) if background else None
    output = output or logging.StreamHandler(stream)
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
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def _background(stream: TextIO) -> logging.Handler | None:
    """None if it has no file descriptor, and so nobody to wait for."""
    try:
        return BackgroundHandler(stream.fileno(), stream.encoding or "utf-8")
    except OSError:
        return None


def flush() -> None:
    """Before the process ends in another way than by the end of Python."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def dropped_lines() -> int:
    """How many lines of this process's log were dropped."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, BackgroundHandler))
