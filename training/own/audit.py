"""Problems with photos and labels, as suggestions that the next run can apply.

1. likely wrong labels are ranked by the score of the label that a photo has, from a head that did not see the photo
   (ten folds of logistic regression);
2. only safe changes are suggested outright: broken files and equal files of one class are dropped. Everything else must
   be checked: a head that is 96 % sure of another label can be wrong;
3. a person edits the file: the next run does what its column `action` says, and nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from training.data.layouts.tables import read_table
from training.data.names import normal_form, printable
from training.errors import DataError
from training.own.classifier import folds
from training.own.classifier.figures import Answers
from training.own.classifier.head import cross_validate, is_uneven
from training.own.photos.collection import Collection, Photo, check
from training.own.seen import Seen, check_enough

FOLDS = 10
SHARE = 0.1  # the largest share of photos that are suspected
DARK, BRIGHT = 0.06, 0.96  # mean of the pixels
THIN = 4.0  # longer than this many times the width: the centred square is a small part of it
COLUMNS = ("path", "label", "action", "new_label", "reason")

Action = Literal["drop", "relabel", "check", "keep"]
ACTIONS: tuple[Action, ...] = ("drop", "relabel", "check", "keep")


@dataclass(frozen=True)
class Suggestion:
    """`path` as in the file: relative to the source if it is inside it. `index` into the photos seen, if it can be
    shown; `score` of the given label if the label is doubtful."""

    path: str
    label: str
    action: Action
    reason: str
    new_label: str = ""
    index: int | None = None
    score: float | None = None


def suspects(seen: Seen, seed: int) -> Answers:
    """Every usable photo, classified by a head that saw neither it nor its copies. Raises DataError."""
    check_enough(seen)
    chosen, labels = seen.fitted, seen.labels
    own, together = labels[chosen], np.unique(seen.groups[chosen], return_inverse=True)[1]
    parts = folds.assign(own, together, min(FOLDS, int(folds.enough(own, together).max())), seed)
    logits = cross_validate(seen.features[chosen], own, parts, balanced=is_uneven(own)).logits
    return Answers(np.flatnonzero(chosen), own, logits, 1.0, f"{int(parts.max()) + 1} folds")


def suggest(seen: Seen, answers: Answers | None) -> list[Suggestion]:
    """One for each file. `answers` as `suspects` gives them; None: labels are not checked."""
    found: dict[str, Suggestion] = {}
    for one in (*_broken(seen), *_copies(seen), *_odd(seen), *(_wrong_labels(seen, answers) if answers else ())):
        if first := found.get(one.path):
            reason = f"{first.reason}; {one.reason}"
            one = replace(first, reason=reason, new_label=one.new_label, score=one.score)
        found[one.path] = one
    return list(found.values())


def _broken(seen: Seen) -> Iterable[Suggestion]:
    for photo, problem in seen.broken:
        yield Suggestion(_name(seen, photo), photo.label, "drop", f"cannot be used: {problem}")


def _copies(seen: Seen) -> Iterable[Suggestion]:
    for pair in seen.copies:
        first, second = seen.photos[pair.first], seen.photos[pair.second]
        kind, name = "equal to" if pair.equal else "nearly equal to", _name(seen, first)
        if first.label != second.label:
            action, reason = "check", f"{kind} {name}, which has the label {first.label}"
        elif (first.split or "train") != (second.split or "train"):
            action, reason = "check", f"{kind} {name}, which is in {first.split or 'train'}: a leak"
        else:
            action, reason = "drop" if pair.equal else "check", f"{kind} {name}"
        yield Suggestion(_name(seen, second), second.label, action, reason, index=pair.second)  # type: ignore[arg-type]


def _odd(seen: Seen) -> Iterable[Suggestion]:
    for index, (photo, look) in enumerate(zip(seen.photos, seen.looks, strict=True)):
        short, long = sorted(look.size)
        if short < seen.size:
            reason = f"only {look.size[0]} x {look.size[1]} pixels, the network sees {seen.size}"
        elif long > THIN * short:
            reason = f"{look.size[0]} x {look.size[1]} pixels: the network sees only the middle"
        elif not DARK <= look.brightness <= BRIGHT:
            reason = "nearly black" if look.brightness < DARK else "nearly white"
        else:
            continue
        yield Suggestion(_name(seen, photo), photo.label, "check", reason, index=index)


def _wrong_labels(seen: Seen, answers: Answers) -> Iterable[Suggestion]:
    """The photos whose own label has the lowest score, worst first."""
    own = answers.scores[np.arange(len(answers.labels)), answers.labels]
    most = int(np.ceil(SHARE * len(own)))
    for row in np.argsort(own, kind="stable")[:most]:
        if answers.given[row] == answers.labels[row]:
            break
        index, best = int(answers.photos[row]), float(answers.scores[row].max())
        other = seen.classes[answers.given[row]]
        yield Suggestion(
            _name(seen, seen.photos[index]),
            seen.photos[index].label,
            "check",
            f"looks like {other} ({best:.0%}), not {seen.photos[index].label} ({own[row]:.0%})",
            other,
            index,
            float(own[row]),
        )


def _name(seen: Seen, photo: Photo) -> str:
    base = seen.source if seen.source.is_dir() else seen.source.parent
    return str(photo.path.relative_to(base) if photo.path.is_relative_to(base) else photo.path)


def to_csv(suggestions: Sequence[Suggestion]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((one.path, one.label, one.action, one.new_label, one.reason) for one in suggestions)
    return text.getvalue().encode("utf-8", "surrogateescape")


def apply(collection: Collection, file: Path) -> Collection:
    """The collection after the file's actions `drop` and `relabel`. Raises DataError that names the line."""
    base = collection.source if collection.source.is_dir() else collection.source.parent
    dropped: set[Path] = set()
    labels: dict[Path, str] = {}
    known = {photo.path for photo in collection.photos}
    for number, row in enumerate(read_table(file), 2):
        path, action, label = base / row.get("path", ""), row.get("action", ""), normal_form(row.get("new_label", ""))
        if action not in ACTIONS:
            raise DataError(f"{file}, line {number}: action {action!r} is not one of {', '.join(ACTIONS)}")
        if path not in known:
            raise DataError(f"{file}, line {number}: {printable(path)} is not among the photos")
        if action == "drop":
            dropped.add(path)
        elif action == "relabel":
            labels[path] = label.strip()
            if not labels[path]:
                raise DataError(f"{file}, line {number}: new_label is empty")
    photos = [
        replace(photo, label=labels.get(photo.path, photo.label))
        for photo in collection.photos
        if photo.path not in dropped
    ]
    note = f"{file}: {len(dropped)} photos dropped, {len(labels)} labels changed"
    changed = replace(collection, photos=tuple(photos), notes=(*collection.notes, note))
    check(changed)
    return changed
