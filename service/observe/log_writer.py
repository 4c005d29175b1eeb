"""Writes log lines in a thread of its own, so that nothing else ever waits for their reader.

1. a line that does not fit into the queue is dropped and counted, and the next line that is written says how many;
2. the end of the process waits for the lines in the queue, but not for long;
3. lines within LINGER_S are written together, except warnings and errors, which are written immediately;
4. lines of up to PIPE_BUF bytes are written whole, even if other processes write to the same pipe.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections import deque

MOST_WAITING_BYTES = 1 << 20
FLUSH_S = 1.0
# Waking the thread for each line takes as long as formatting it.
LINGER_S = 0.02
# Most bytes that a pipe takes as one piece: PIPE_BUF of Linux.
PIECE_BYTES = 4096


class BackgroundHandler(logging.Handler):
    """`dropped`: lines that were never written."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        super().__init__()
        self.dropped = 0
        self._unsaid = 0  # of those, how many the log does not mention yet
        self._descriptor = os.dup(descriptor)  # closing the other one does not redirect the log
        self._encoding = encoding
        self._lines: deque[bytes] = deque()
        self._bytes = 0  # in the queue, or being written
        self._changed = threading.Condition()
        self._closed = False
        self._hurry = False  # write without waiting for more
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._encoded(record)
        except Exception:  # noqa: BLE001  # as every handler of the standard library
            self.handleError(record)
            return
        with self._changed:
            if self._closed or self._bytes + len(line) > MOST_WAITING_BYTES:
                self._drop(1)
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._hurry = self._hurry or record.levelno >= logging.WARNING
            if len(self._lines) == 1 or self._is_due():
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written, for at most FLUSH_S."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._bytes, FLUSH_S)

    def close(self) -> None:
        """What is not written by then is dropped."""
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._unsaid += lines

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        while lines := self._wait_for_lines():
            is_written = self._write(b"".join(lines))
            with self._changed:
                if not is_written:
                    self._drop(len(lines))
                self._bytes -= sum(map(len, lines))
                self._hurry = self._hurry and bool(self._lines)
                if is_written and self._unsaid:
                    self._say_what_was_dropped()
                self._changed.notify_all()

        os.close(self._descriptor)

    def _wait_for_lines(self) -> list[bytes]:
        """None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            self._changed.wait_for(self._is_due, LINGER_S)
            return [] if self._closed else self._take()

    def _is_due(self) -> bool:
        return self._closed or self._hurry or self._bytes >= PIECE_BYTES

    def _take(self) -> list[bytes]:
        """At least one line; more if they fit into one piece."""
        lines = [self._lines.popleft()]
        size = len(lines[0])
        while self._lines and size + len(self._lines[0]) <= PIECE_BYTES:
            size += len(self._lines[0])
            lines.append(self._lines.popleft())
        return lines

    def _write(self, content: bytes) -> bool:
        """Could it be written? Waits as long as it takes."""
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made the pipe non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # its reader has gone, or the disk is full
                return False
        return True

    def _say_what_was_dropped(self) -> None:
        """As the next line."""
        count, self._unsaid = self._unsaid, 0
        message = "%d log lines were dropped, because the log was not read or could not be written"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, (count,), None)
        self.filter(record)
        line = self._encoded(record)
        self._lines.appendleft(line)
        self._bytes += len(line)
