from __future__ import annotations

import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from service.observe.logs import MOST_LINE, configure


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = ["", "uvicorn", "uvicorn.error", "uvicorn.access"]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def json_lines(stream: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_there_is_one_json_object_per_record_whatever_its_content() -> None:
    stream = StringIO()
    configure("json", stream)
    logging.getLogger("a.b").info("two\nlines of %s", "grün")
    logging.getLogger("a.b").debug("not shown")
    [line] = json_lines(stream)
    assert set(line) == {"ts", "level", "logger", "msg"}
    assert (line["level"], line["logger"], line["msg"]) == ("info", "a.b", "two\nlines of grün")
    assert line["ts"].endswith("Z")
    assert len(line["ts"]) == len("2026-01-31T12:00:00.123Z")


def test_what_a_caller_gives_as_extra_becomes_fields() -> None:
    stream = StringIO()
    configure("json", stream)
    logging.getLogger("a").info("request", extra={"status": 200, "duration_ms": 1.5, "request_id": "x"})
    [line] = json_lines(stream)
    assert (line["status"], line["duration_ms"], line["request_id"]) == (200, 1.5, "x")


def test_a_value_that_json_cannot_hold_is_written_as_text() -> None:
    stream = StringIO()
    configure("json", stream)
    logging.getLogger("a").info("odd", extra={"thing": {1}, "error_class": ValueError("no")})
    [line] = json_lines(stream)
    assert (line["thing"], line["error_class"]) == ("{1}", "no")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_comes_with_its_traceback(log_format: Any) -> None:
    stream = StringIO()
    configure(log_format, stream)
    try:
        raise RuntimeError("gone wrong")
    except RuntimeError:
        logging.getLogger("a").exception("failed")
    assert "RuntimeError: gone wrong" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    if log_format == "json":
        [line] = json_lines(stream)
        assert "Traceback" in line["error"]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_readable_text_is_aligned() -> None:
    stream = StringIO()
    configure("console", stream)
    logging.getLogger("service.cli").warning("look out", extra={"port": 8000})
    logging.getLogger("service.classify.batching").info("a longer text", extra={"port": 9000})
    logging.getLogger("elsewhere").info("nothing more")
    first, second, third = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} WARNING cli +look out +port=8000", first)
    assert [first.index(word) for word in ("look", "port")] == [second.index(word) for word in ("a longer", "port")]
    assert third == third.rstrip()


def test_readable_text_repeats_nothing() -> None:
    stream = StringIO()
    configure("console", stream)
    fields = {"method": "POST", "status": 200, "images": 200, "total_ms": 1.5}
    logging.getLogger("a").info("%s %d", "POST", 200, extra=fields)
    assert stream.getvalue().split()[2:] == ["a", "POST", "200", "images=200", "total_ms=1.5"]


def test_readable_text_is_coloured_only_on_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(stream: StringIO) -> str:
        configure("console", stream)
        logging.getLogger("a").error("bad", extra={"port": 1})
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[31mERROR  \033[0m" in written(Terminal())
    assert "\033" not in written(StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in written(Terminal())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_stack_that_is_asked_for_is_written(log_format: Any) -> None:
    stream = StringIO()
    configure(log_format, stream)
    logging.getLogger("a").info("here", stack_info=True)
    assert "test_a_stack_that_is_asked_for_is_written" in stream.getvalue()


def test_a_path_cannot_start_a_line_or_move_the_cursor_on_the_console() -> None:
    stream = StringIO()
    configure("console", stream)
    logging.getLogger("service.access").info("GET %s", "/a\n12:00:00 INFO all is well\x1b[2J\x9b2J ä")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith(" GET /a\\x0a12:00:00 INFO all is well\\x1b[2J\\x9b2J ä\n")


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "uvicorn.access"])
def test_the_web_servers_own_loggers_are_included_once(name: str) -> None:
    stream, elsewhere = StringIO(), StringIO()
    logging.getLogger(name).addHandler(logging.StreamHandler(elsewhere))
    logging.getLogger(name).setLevel(logging.WARNING)
    configure("json", stream)
    configure("json", stream)
    logging.getLogger(name).info("started", extra={"color_message": "\033[32mstarted"})
    [line] = json_lines(stream)
    assert (line["logger"], line["msg"]) == (name, "started")
    assert "color_message" not in line
    assert elsewhere.getvalue() == ""


@pytest.mark.parametrize(("log_format", "said"), [("json", '"worker": 2'), ("console", "worker=2")])
def test_every_line_of_a_worker_carries_its_number(log_format: Any, said: str) -> None:
    stream = StringIO()
    configure(log_format, stream, worker=2)
    logging.getLogger("a").info("one")
    logging.getLogger("uvicorn.error").error("two")
    assert [said in line for line in stream.getvalue().splitlines()] == [True, True]


# Every character that moves a cursor, ends a line, turns text around, is invisible, or cannot be encoded.
UNSAFE = [
    chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_every_control_and_format_character_is_escaped(log_format: Any) -> None:
    assert {"\x7f", "\x9b", "\u2028", "\u2029", "\u202e", "\u200b", "\ufeff", "\ud800", "\U000e0041"} <= set(UNSAFE)
    for start in range(0, len(UNSAFE), 100):
        stream = StringIO()
        configure(log_format, stream)
        text = "".join(UNSAFE[start : start + 100])
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("a").exception("GET %s", text, extra={"path": text + "!", "deep": {"list": [text]}})
        written = stream.getvalue()
        assert not set(written) - {"\n"} & set(UNSAFE)
        written.encode()
        if log_format == "json" and not re.search("[\ud800-\udfff]", text):
            [line] = json_lines(stream)
            assert (line["msg"], line["path"], line["deep"]["list"]) == (f"GET {text}", text + "!", [text])


def test_a_traceback_on_the_console_cannot_look_like_a_line_of_the_log() -> None:
    stream = StringIO()
    configure("console", stream)
    try:
        raise ValueError("no\n12:00:00.000 INFO    access         all is well\r12:00:00.000 INFO\u2028x")
    except ValueError:
        logging.getLogger("a").exception("failed")
    first, *others = stream.getvalue().removesuffix("\n").split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("  ") for line in others)
    assert "\r" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("character", ["x", "\x00", "\U000e0041", "ä", "\ud800"])
def test_lines_are_bounded_and_keep_both_ends(log_format: Any, character: str) -> None:
    stream = StringIO()
    configure(log_format, stream)
    text = f"start{character * 1_000_000}end"
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("a").exception("%s", text, extra={"path": text + "!", "deep": {"list": [text]}})
    assert len(stream.getvalue().encode(errors="backslashreplace")) <= 4 * MOST_LINE
    assert "start" in stream.getvalue()
    assert "end" in stream.getvalue()
    assert "characters left out" in stream.getvalue()
    if log_format == "json":
        assert set(json_lines(stream)[0]) == {"ts", "level", "logger", "msg", "path", "deep", "error"}
