"""The user's files as photos with labels: folders, or a table that names the files.

1. folders of classes, with or without splits, and a CSV or Parquet file of `path,label[,split,group]` are read the same
   way;
2. photos of a group, given by a column or a pattern in their names, are never separated;
3. skipped files are counted, and if a tool can convert them it is named;
4. a table that names files that do not exist is an error that lists them;
5. classes whose names differ only in case or Unicode form are an error, and so are several labels of one photo;
6. folders that all contain the same folders are taken for classes, and the output says that this is doubtful.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.preprocess import SUFFIXES, images_in
from training.data.layouts.tables import SEPARATOR, SPLITS, Split, read_table
from training.data.names import check_labels, class_folders, listed, normal_form
from training.errors import ConfigError, DataError

MOST_CLASSES = 1000
_HEIC = (
    "heif-convert IN OUT.jpg (Debian: libheif-examples), or on an iPhone Settings > Camera > Formats > Most Compatible"
)
_RAW = "darktable-cli IN OUT.jpg (Debian: darktable)"
_VIDEO = "ffmpeg -i IN -vf fps=1 OUT%04d.jpg"
# Suffix -> the command that makes JPEGs of such files.
CONVERTERS = {
    **dict.fromkeys((".heic", ".heif"), _HEIC),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"), _RAW),
    **dict.fromkeys((".avif", ".jxl", ".psd", ".jp2", ".ico", ".svg"), "magick IN OUT.png (Debian: imagemagick)"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), _VIDEO),
}


@dataclass(frozen=True)
class Photo:
    """`split` if the layout gives one; photos with the same `group` belong together."""

    path: Path
    label: str
    split: Split | None = None
    group: str | None = None


@dataclass(frozen=True)
class Collection:
    """`notes`: what the user should know about how the source was read."""

    source: Path
    photos: tuple[Photo, ...]
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({photo.label for photo in self.photos}))


def collect(source: Path, group_pattern: str | None = None) -> Collection:
    """Read the folder or table `source`. `group_pattern`: a regular expression for file names, whose first group (or
    the whole match) names the group. Raises DataError, ConfigError.
    """
    if source.is_dir():
        found = _folders(source)
    elif source.is_file():
        found = Collection(source, tuple(_table(source)))
    else:
        raise DataError(f"{source} does not exist: give a folder with one folder for each class, or a CSV")
    if group_pattern is not None:
        found = replace(found, photos=tuple(_grouped(found.photos, group_pattern)))
    check(found)
    return found


def check(collection: Collection) -> None:
    """Raises DataError unless there are classes to distinguish, with valid names."""
    classes, source = collection.classes, collection.source
    check_labels(classes, source)
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    if twice := [" and ".join(names) for names in alike.values() if len(names) > 1]:
        raise DataError(f"{source}: classes that differ only in case or spaces: {listed(twice)}; give them one name")
    if len(classes) < 2:
        only = f"only one class, {classes[0]}" if classes else "no photos"
        more = "".join(f"; {note}" for note in collection.notes)
        raise DataError(f"{source} has {only}: a classifier needs at least two, each with a folder of its own{more}")
    if len(classes) > MOST_CLASSES:
        raise DataError(
            f"{source} has {len(classes)} classes, this command takes up to {MOST_CLASSES}: train a network for them "
            "with training.train; if these are not classes, give the folder above or below"
        )


def _folders(source: Path) -> Collection:
    root, notes = _descend(source)
    folders = class_folders(root)
    splits = {name: SPLITS.get(name.lower()) for name in folders}
    if "train" in splits.values() and all(splits.values()):
        photos = [
            replace(photo, split=splits[name])
            for name, folder in folders.items()
            for photo in _classes(class_folders(folder))
        ]
        _check_splits(root, photos)
    elif not folders and any(images_in(root)):
        raise DataError(
            f"{root} has photos but no folders: put the photos of each class into {root}/<class>/, or give a CSV"
        )
    else:
        photos = _classes(folders)
        filled = {photo.label for photo in photos}
        if empty := sorted(set(folders) - filled):
            notes.append(f"without photos, and left out: {listed(empty)}")
        notes += _same_inside(folders)
    return Collection(source, tuple(photos), (*notes, *_passed_over(root)))


def _descend(source: Path) -> tuple[Path, list[str]]:
    """Skips folders that contain only one folder, as archives often do."""
    root = source
    while True:
        entries = [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir() or not any(path.is_dir() for path in entries[0].iterdir()):
            return root, [f"the classes are in {root}"] if root != source else []
        root = entries[0]


def _classes(folders: Mapping[str, Path]) -> list[Photo]:
    return [Photo(path, name) for name, folder in folders.items() for path in sorted(images_in(folder))]


def _same_inside(folders: Mapping[str, Path]) -> list[str]:
    """A line if the classes may lie a level deeper: if at least two folders hold the same ones, and at least two."""
    inside = {name: tuple(sorted(class_folders(folder))) for name, folder in folders.items()}
    alike = [name for name, names in inside.items() if len(names) > 1 and list(inside.values()).count(names) > 1]
    if not alike:
        return []
    names = listed(inside[alike[0]])
    return [f"{listed(alike)} are taken for classes, and hold the same folders ({names}): if those are, give a CSV"]


def _check_splits(source: Path, photos: Iterable[Photo]) -> None:
    known = {photo.label for photo in photos if photo.split == "train"}
    if unknown := sorted({photo.label for photo in photos} - known):
        raise DataError(f"{source}: classes without photos in train: {listed(unknown)}")


def _passed_over(root: Path) -> list[str]:
    """A line for each kind of file that is not an image here, and one for photos in subfolders of their class."""
    suffixes = Counter(
        Path(name).suffix.lower()
        for _, folders, files in os.walk(root)
        for name in files
        if not name.startswith(".") and Path(name).suffix.lower() not in SUFFIXES
    )
    return [
        f"skipped {count} {suffix or 'files without suffix'}"
        + (f": convert them with {CONVERTERS[suffix]}" if suffix in CONVERTERS else "")
        for suffix, count in suffixes.most_common()
    ]


def _grouped(photos: Iterable[Photo], pattern: str) -> Iterable[Photo]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group_pattern {pattern!r} is not a regular expression: {error}") from error
    for photo in photos:
        match = compiled.search(photo.path.name)
        yield replace(photo, group=match[min(1, compiled.groups)]) if match else photo


def _table(file: Path) -> list[Photo]:
    rows = read_table(file)
    if not rows or not {"path", "label"} <= set(rows[0]):
        raise DataError(f"{file} needs columns path and label, and may have split and group")
    _check_one_label(rows, file)
    photos = [_row(row, file, number) for number, row in enumerate(rows, 2)]
    if missing := [str(photo.path) for photo in photos if not photo.path.is_file()]:
        names = listed(missing, "\n  ")
        raise DataError(f"{file}: {len(missing)} of {len(photos)} files do not exist:\n  {names}")
    if any(photo.split == "train" for photo in photos):
        _check_splits(file, photos)
    return photos


def _check_one_label(rows: Sequence[Mapping[str, str]], file: Path) -> None:
    """Raises DataError where a photo has several labels as training.train takes them, such as `cat|dog`."""
    if several := [row["label"] for row in rows if SEPARATOR in row["label"]]:
        raise DataError(
            f"{file}: {len(several)} photos have several labels, such as {several[0]}; this command learns one label a "
            "photo: python -m training.train with `set: CSV` and `labels: multi` in the recipe learns each label by "
            "itself (docs/train-your-own.md)"
        )


def _row(row: Mapping[str, str], file: Path, line: int) -> Photo:
    label, split = normal_form(row["label"]).strip(), row.get("split", "").strip().lower()
    if not label or not row["path"]:
        raise DataError(f"{file}, line {line}: path and label must not be empty")
    if split and split not in SPLITS:
        raise DataError(f"{file}, line {line}: split {split!r} is not one of {', '.join(SPLITS)}")
    return Photo(file.parent / row["path"], label, SPLITS.get(split), row.get("group", "").strip() or None)
