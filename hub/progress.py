"""Progress messages for people who wait for a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm


def megabytes(count: float) -> str:
    return f"{count / 1e6:.3g} MB" if count >= 1e5 else f"{count / 1e3:.3g} kB"


class Progress:
    """A bar on a terminal, otherwise a line for every finished file; and other messages."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, line: str) -> None:
        print(line if line.isprintable() else ascii(line), file=self.stream, flush=True)

    @contextmanager
    def bar(self, name: str, size: int | None) -> Iterator[Callable[[int], None]]:
        """`with bar(...) as advance: advance(bytes)`."""
        live = self.stream.isatty()
        with tqdm(
            total=size, desc=name, unit="B", unit_scale=True, file=self.stream, disable=not live, leave=False
        ) as drawn:
            count = 0

            def advance(more: int) -> None:
                nonlocal count
                count += more
                drawn.update(more)

            yield advance
        self.say(f"  {name}  {megabytes(count)}")
