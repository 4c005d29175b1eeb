"""Real pipes: nobody reads them, they are read late, or their reader has gone."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pytest

import service
from service.observe import log_writer, logs
from service.observe.log_writer import FLUSH_S, MOST_WAITING_BYTES, PIECE_BYTES

ROOT = Path(service.__file__).parents[1]
LINE = "x" * 900
# More than a pipe and the queue hold.
LINES = MOST_WAITING_BYTES // 900 + 200


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, TextIO]]:
    """A log that goes to a pipe: what to read from it, and its stream."""
    root = logging.getLogger()
    before = root.handlers, root.level
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as reader:
        logs.configure("json", stream, background=True)
        yield reader, stream
        reader.close()
        root.handlers[0].close()
        root.handlers = before[0]
        root.setLevel(before[1])


def lines_of(reading: BinaryIO, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """All lines up to a `wanted` one."""
    found: list[dict[str, Any]] = []
    for line in reading:
        found.append(json.loads(line))
        if wanted(found[-1]):
            break
    return found


def test_a_log_that_nobody_reads_blocks_nobody_and_what_is_dropped_is_counted_and_said(
    pipe: tuple[BinaryIO, TextIO],
) -> None:
    reading, _ = pipe
    for number in range(LINES):
        logging.getLogger("a").info("%s", LINE, extra={"number": number})
    dropped = logs.dropped_lines()
    assert 0 < dropped < LINES
    found = lines_of(reading, lambda line: "were dropped" in line["msg"])
    assert found[-1]["msg"].startswith(f"{dropped} log lines were dropped")
    assert found[-1]["level"] == "warning"
    logging.getLogger("a").info("the last one")
    found += lines_of(reading, lambda line: line["msg"] == "the last one")
    numbers = [line["number"] for line in found if "number" in line]
    assert numbers == list(range(LINES - dropped))


@pytest.mark.usefixtures("pipe")
def test_the_end_waits_for_an_unread_log_but_not_for_long() -> None:
    for _ in range(LINES):
        logging.getLogger("a").info(LINE)
    started = time.monotonic()
    logs.flush()
    assert FLUSH_S * 0.9 <= time.monotonic() - started < FLUSH_S + 5


def test_a_flush_writes_everything(pipe: tuple[BinaryIO, TextIO]) -> None:
    reading, _ = pipe
    for number in range(40):
        logging.getLogger("a").info("line %d", number)
    logs.flush()
    assert os.read(reading.fileno(), 1 << 20).count(b"\n") == 40


def writes_until(descriptor: int, text: bytes) -> int:
    """How many pieces came until one ended with it, as a reader that is always ready sees them."""
    content, pieces = b"", 0
    while text not in content:
        content, pieces = content + os.read(descriptor, 1 << 20), pieces + 1
    return pieces


def test_lines_that_come_together_are_written_together_and_a_warning_at_once(
    pipe: tuple[BinaryIO, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, _ = pipe
    monkeypatch.setattr(log_writer, "LINGER_S", 30.0)
    logger = logging.getLogger("a")
    logger.info("the first")
    time.sleep(0.05)  # its thread is awake
    logger.info("the second")
    logger.warning("the third")
    assert writes_until(reading.fileno(), b"the third") == 1
    for number in range(PIECE_BYTES // len(LINE) + 1):
        logger.info("%s %d", LINE, number)
    os.read(reading.fileno(), 1 << 20)  # not in 30 s, but since they fill a piece


def test_a_reader_that_has_gone_costs_lines_and_nothing_else(pipe: tuple[BinaryIO, TextIO]) -> None:
    reading, _ = pipe
    reading.close()
    logging.getLogger("a").info("one")
    logging.getLogger("a").info("two")
    logs.flush()
    assert logs.dropped_lines() == 2


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[BinaryIO, TextIO]) -> None:
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    for number in range(300):
        logging.getLogger("a").info("%s", LINE, extra={"number": number})
    found = lines_of(reading, lambda line: line["number"] == 299)
    assert [line["number"] for line in found] == list(range(300))
    assert logs.dropped_lines() == 0


ENDING = """
import logging, sys
from service.observe import logs
logs.configure("json", sys.stdout, background=True)
for number in range(int(sys.argv[1])):
    logging.getLogger("a").info("line %d " + "x" * 900, number)
"""


def test_a_process_ends_with_all_its_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        subprocess.run([sys.executable, "-c", ENDING, "1000"], cwd=ROOT, stdout=file, check=True, timeout=120)
    assert (tmp_path / "log").read_bytes().count(b"\n") == 1000


def test_a_process_whose_log_is_not_read_ends_too() -> None:
    command = [sys.executable, "-c", ENDING, str(LINES)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(120) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
