"""Tables that name images: CSV or Parquet files of path, label and split.

1. comma, semicolon and tab all work, and paths are relative to the file;
2. files that do not exist are listed, and a label that no training image has is an error that names it;
3. if several labels may apply, the column label has all of them, as in `cat|dog`, or is empty.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from training.data.images import ImageFolder
from training.data.names import check_labels, listed, normal_form
from training.errors import DataError

Split = Literal["train", "val", "test"]
SEPARATOR = "|"  # of the labels of an image
# Common names -> our names.
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class MultiLabelled(ImageFolder):
    """Images to which several labels may apply: `truths` float32 (N, K), 1 where one does. The class ids of `images`
    mean nothing."""

    truths: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32), compare=False)

    @property
    def labels(self) -> NDArray[Any]:
        return self.truths

    def subset(self, indices: Sequence[int]) -> MultiLabelled:
        chosen = tuple(self.images[index] for index in indices)
        return MultiLabelled(self.root, self.classes, chosen, truths=self.truths[list(indices)])


def open_table(file: Path, split: Split, *, multi: bool) -> ImageFolder:
    """The images of a split. Raises DataError."""
    if not file.is_file():
        raise DataError(f"data_url {file} is not a file: set: CSV needs a table with columns path, label and split")
    rows = read_table(file)
    if not rows or not {"path", "label", "split"} <= set(rows[0]):
        raise DataError(f"{file} needs columns path, label and split (train and val)")
    labels = [_labels(row["label"], multi) for row in rows]
    splits = [_split(row["split"], file, line) for line, row in enumerate(rows, 2)]
    if not multi and (line := next((number for number, names in enumerate(labels, 2) if not names[0]), None)):
        raise DataError(f"{file}, line {line}: label is empty; if several or none may apply, give --labels multi")
    classes = tuple(sorted({name for names in labels for name in names}))
    check_labels(classes, file)
    _check(file, rows, labels, splits, classes)
    chosen = [index for index, name in enumerate(splits) if name == split]
    if not chosen:
        raise DataError(f"{file} has no row whose split is {split}")
    number = {name: class_id for class_id, name in enumerate(classes)}
    paths = [file.parent / rows[index]["path"] for index in chosen]
    if not multi:
        return ImageFolder(
            file, classes, tuple((path, number[labels[index][0]]) for path, index in zip(paths, chosen, strict=True))
        )
    truths = np.zeros((len(chosen), len(classes)), np.float32)
    for row, index in enumerate(chosen):
        truths[row, [number[name] for name in labels[index]]] = 1.0
    return MultiLabelled(file, classes, tuple((path, 0) for path in paths), truths=truths)


def _labels(text: str, multi: bool) -> tuple[str, ...]:
    names = [normal_form(name).strip() for name in (text.split(SEPARATOR) if multi else [text])]
    return tuple(dict.fromkeys(name for name in names if name)) if multi else tuple(names)


def _split(text: str, file: Path, line: int) -> Split:
    if text.strip().lower() not in SPLITS:
        raise DataError(f"{file}, line {line}: split {text!r} is not one of {', '.join(SPLITS)}")
    return SPLITS[text.strip().lower()]


def _check(
    file: Path,
    rows: Sequence[Mapping[str, str]],
    labels: Sequence[tuple[str, ...]],
    splits: Sequence[Split],
    classes: Sequence[str],
) -> None:
    if missing := [row["path"] for row in rows if not (file.parent / row["path"]).is_file()]:
        raise DataError(f"{file}: {len(missing)} of {len(rows)} files do not exist: {listed(missing)}")
    known = {name for names, split in zip(labels, splits, strict=True) if split == "train" for name in names}
    if unknown := sorted(set(classes) - known):
        raise DataError(f"{file}: labels without a training image: {listed(unknown)}")


def read_table(file: Path) -> Sequence[Mapping[str, str]]:
    """The rows of a CSV (comma, semicolon or tab) or Parquet file as text. Raises DataError."""
    if file.suffix.lower() in (".parquet", ".pq"):
        return _parquet(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}") from error
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter, restval="")
    return [{key.strip().lower(): value or "" for key, value in row.items() if key} for row in rows]


def _parquet(file: Path) -> Sequence[Mapping[str, str]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{file} needs pyarrow: pip install 'repvgg[parquet]', or save it as CSV") from error
    try:
        rows = cast(list[dict[str, Any]], parquet.read_table(file).to_pylist())
    except (ArrowException, OSError) as error:
        raise DataError(f"{file} is not a readable Parquet file: {error}") from error
    return [{key.lower(): "" if value is None else str(value) for key, value in row.items()} for row in rows]
