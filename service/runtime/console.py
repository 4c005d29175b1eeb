"""The environment and the streams of a command.

1. text that the terminal's encoding lacks is escaped and never raises: `\\xe9`, and `\\udcff` for a byte of a file name
   that is not UTF-8;
2. a stream that is closed, or a pipe whose reader has gone, raises OutputLost for results and nothing for messages.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO, cast

from service.errors import ServiceError


class OutputLost(ServiceError):
    """The results cannot be written. `is_pipe`: their reader has gone, which is not reported as an error."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror}")
        self.is_pipe = isinstance(error, BrokenPipeError)


@dataclass(frozen=True)
class Console:
    """The environment, and the two streams: `out` for results, `err` for everything else."""

    environ: Mapping[str, str]
    out: TextIO
    err: TextIO

    @classmethod
    def standard(cls, environ: Mapping[str, str], out: TextIO | None = None, err: TextIO | None = None) -> Console:
        """With the process's own streams, made robust, if none are given."""
        _reserve_closed_descriptors()
        return cls(environ, out or cast(TextIO, Results(sys.stdout)), err or cast(TextIO, Messages(sys.stderr)))

    @property
    def log_stream(self) -> TextIO:
        """For a server, whose results are its log: stderr if stdout is closed."""
        return self.err if isinstance(self.out, Results) and self.out.is_closed else self.out


def _reserve_closed_descriptors() -> None:
    """For a process started with `>&-`: otherwise the next file or socket that it opens would become its stdout."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


class _Stream(io.TextIOBase):
    """Around a standard stream, which is None if it was closed when the process started."""

    def __init__(self, stream: TextIO | None) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self._stream = stream

    @property
    def is_closed(self) -> bool:
        return self._stream is None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding if self._stream else "utf-8"

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        return self._open_stream().fileno()

    def _open_stream(self) -> TextIO:
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream


class Results(_Stream):
    def write(self, text: str) -> int:
        try:
            return self._open_stream().write(text)
        except OSError as error:
            raise self._lost(error) from error

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError as error:
                raise self._lost(error) from error

    def _lost(self, error: OSError) -> OutputLost:
        if self._stream is not None:  # what is left in its buffer would fail again when Python flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return OutputLost(error)


class Messages(_Stream):
    """There is nobody to tell that a message was lost."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._open_stream().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._open_stream().flush()
