"""Names of classes and files: one normal form to compare them in, one printable form for messages.

1. a class has the same name on every system: names are compared, and become labels, in Unicode's NFC;
2. a name that cannot be a label, with a line break, a control character or bytes that are not UTF-8, is rejected;
3. a message prints any name on one line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.errors import DataError

LISTED = 20  # names that a message lists before it counts the rest
# Control characters, halves of surrogate pairs (bytes that are not UTF-8), line and paragraph separators: labels are
# the lines of a UTF-8 text file.
_NOT_IN_LABELS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def normal_form(name: str) -> str:
    """macOS may store `é` as two code points, Linux usually stores one; NFC always has one."""
    return unicodedata.normalize("NFC", name)


def printable(name: object) -> str:
    """The name with an escape sequence for each character that is not printable."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(name)
    )


def listed(names: Iterable[str], separator: str = ", ", most: int = LISTED) -> str:
    """The first `most` names, then how many more there are."""
    names = [printable(name) for name in names]
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return separator.join([*names[:most], *more])


def class_folders(root: Path) -> dict[str, Path]:
    """Class -> its folder, sorted by class; hidden folders are skipped.

    Raises DataError for a name that cannot be a label, and for two folders of one class.
    """
    folders: dict[str, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not _is_label(folder.name):
            raise DataError(
                f"{printable(folder)}: the folder's name cannot be a label, because it has a line break, a control "
                "character or bytes that are not UTF-8: rename the folder in train and val"
            )
        name = normal_form(folder.name)
        if name in folders:
            raise DataError(
                f"{root} has two folders named {name}, which differ only in how Unicode composes the name: "
                "move their images into one"
            )
        folders[name] = folder
    return {name: folders[name] for name in sorted(folders)}


def check_labels(names: Sequence[str], source: Path) -> None:
    """Raises DataError for a name of `source` that cannot be a label, and for one that two classes share."""
    if wrong := [name for name in names if not name or not _is_label(name)]:
        raise DataError(f"{source}: class names that cannot be labels: {listed(wrong)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{source}: classes that share a name: {listed(twice)}")


def _is_label(name: str) -> bool:
    return not any(unicodedata.category(letter) in _NOT_IN_LABELS for letter in name)


def check_same_classes(
    expected: tuple[str, ...], found: tuple[str, ...], root: Path, expected_by: str = "train"
) -> None:
    """Raises DataError that names the classes that are either missing at `root` or not `expected_by` the caller."""
    missing, unknown = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    parts = [f"{word} {listed(names)}" for word, names in (("it lacks", missing), ("it alone has", unknown)) if names]
    if parts:
        raise DataError(f"{root} must have the classes of {expected_by}: {'; '.join(parts)}")
