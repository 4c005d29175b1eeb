from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from service.logs import configure


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


def test_one_json_object_a_record_whatever_is_in_it() -> None:
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


def test_the_console_line_is_for_people() -> None:
    stream = StringIO()
    configure("console", stream)
    logging.getLogger("service.cli").warning("look out", extra={"port": 8000})
    assert stream.getvalue()[8:] == " WARNING service.cli: look out port=8000\n"


def test_a_path_begins_no_line_on_the_console_and_moves_no_cursor() -> None:
    stream = StringIO()
    configure("console", stream)
    logging.getLogger("service.access").info("GET %s", "/a\n12:00:00 INFO all is well\x1b[2J\x9b2J ä")
    assert stream.getvalue()[17:] == "service.access: GET /a\\x0a12:00:00 INFO all is well\\x1b[2J\\x9b2J ä\n"


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "uvicorn.access"])
def test_the_web_servers_own_loggers_go_the_same_way_once(name: str) -> None:
    stream, elsewhere = StringIO(), StringIO()
    logging.getLogger(name).addHandler(logging.StreamHandler(elsewhere))
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
