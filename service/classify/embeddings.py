"""Embeddings of many images in one file, for search and clustering.

1. a row for each image that has an embedding, in the order of the paths;
2. a file is replaced completely or not at all.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import ConfigError, UsageError

PARQUET_NOT_INSTALLED = (
    "--out: .parquet needs pyarrow, which is not installed: pip install 'repvgg[parquet]', or write .npz or .csv"
)


@dataclass
class Embeddings:
    """`rows`: float32 (C,) each, one for each of `paths`; `model`: `name version precision` of their source."""

    model: str
    paths: list[str] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, path: Path, row: NDArray[np.float32]) -> None:
        self.paths.append(str(path))
        self.rows.append(row)

    def write(self, path: Path) -> None:
        """In the format of its suffix. Raises UsageError if it cannot be written."""
        draft = path.with_name(f".{path.name}.part")
        try:
            WRITERS[path.suffix](self, draft)
            draft.replace(path)
        except OSError as error:
            raise UsageError(f"--out {path} cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def check(path: Path) -> None:
    """Before the work begins: raises UsageError, and ConfigError for a package that is missing."""
    if path.suffix not in WRITERS:
        raise UsageError(f"--out {path}: the name must end in {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise UsageError(f"--out: there is no folder {path.parent}")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ConfigError(PARQUET_NOT_INSTALLED) from error


def _write_npz(found: Embeddings, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, paths=np.array(found.paths), embeddings=np.stack(found.rows), model=np.array(found.model))


def _write_csv(found: Embeddings, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *range(len(found.rows[0]))])
        writer.writerows([name, *map(str, row)] for name, row in zip(found.paths, found.rows, strict=True))


def _write_parquet(found: Embeddings, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    size = len(found.rows[0])
    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.concatenate(found.rows)), size)
    names = [os.fsencode(name).decode(errors="replace") for name in found.paths]
    table = pyarrow.table({"path": names, "embedding": vectors})
    parquet.write_table(table.replace_schema_metadata({"model": found.model}), path)


WRITERS: dict[str, Callable[[Embeddings, Path], None]] = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
