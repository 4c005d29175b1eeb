"""The command's output, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from models.store import Bundle
from training.data.names import listed
from training.own.audit import ACTIONS, Suggestion
from training.own.classifier.figures import SMALL_CLASS, Answers
from training.own.photos.collection import Collection
from training.own.seen import Seen

CONFUSIONS = 5
LISTED = 10  # suggestions

Say = Callable[[str], None]


def describe(collection: Collection, say: Say) -> None:
    counts = Counter(photo.label for photo in collection.photos)
    splits = Counter(photo.split for photo in collection.photos if photo.split)
    classes = listed((f"{name} {count}" for name, count in sorted(counts.items())), most=12)
    say(f"{collection.source}: {len(collection.photos)} photos of {len(counts)} classes: {classes}")
    if splits:
        say("  splits: " + ", ".join(f"{name} {splits[name]}" for name in ("train", "val", "test") if name in splits))
    for note in collection.notes:
        say(f"  {note}")


def describe_seen(seen: Seen, say: Say) -> None:
    if seen.broken:
        lines = [f"{photo.path}: {problem}" for photo, problem in seen.broken]
        say(f"  {len(lines)} files cannot be used and are left out:\n    {listed(lines, chr(10) + '    ', 10)}")
    if seen.copies:
        equal = sum(pair.equal for pair in seen.copies)
        say(f"  {equal} pairs of equal files, {len(seen.copies) - equal} of near-duplicates: never split")
    if seen.leaks:
        left_out = sum(photo.split in (None, "train") for photo in seen.photos) - int(seen.fitted.sum())
        say(f"  {len(seen.leaks)} pairs leak between splits: {left_out} photos of train are not used")
    for size, (accuracy, surprise) in sorted(seen.compared.items()):
        mark = " <- chosen" if size == seen.size else ""
        say(f"  {size} pixels: {accuracy:.1%} right under cross-validation, log loss {surprise:.3f}{mark}")


def describe_answers(what: str, answers: Answers, seen: Seen, say: Say) -> None:
    low, high = answers.interval
    say(
        f"{what}: accuracy {answers.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}; {answers.how}), "
        f"macro-F1 {answers.macro_f1(seen.classes):.1%}, temperature {answers.temperature:.2f}"
    )
    for truth, answer, count in answers.confusions(seen.classes, CONFUSIONS):
        say(f"  {truth} taken for {answer}: {count}")
    small = [one.label for one in answers.classes(seen.classes) if one.images < SMALL_CLASS]
    if small:
        say(f"  fewer than {SMALL_CLASS} photos to judge by, so their figures say little: {listed(small)}")


def describe_bundle(bundle: Bundle, engines: Sequence[str], say: Say, seconds: float) -> None:
    say(f"{bundle.folder}: written, {seconds:.0f} s in all. On each engine: golden difference, same answers, images/s")
    for line in engines:
        say(f"  {line}")
    say("serve it, and open the page:")
    for line in commands(bundle):
        say(f"  {line}")


def commands(bundle: Bundle) -> list[str]:
    """The commands that serve it and open the page."""
    return [f".venv/bin/repvgg serve --model {bundle.folder}", "python3 -m webbrowser http://127.0.0.1:8000"]


def describe_suggestions(suggestions: Sequence[Suggestion], say: Say) -> None:
    counts = Counter(one.action for one in suggestions)
    say("suggestions: " + (", ".join(f"{counts[one]} to {one}" for one in ACTIONS if counts[one]) or "none"))
    for one in suggestions[:LISTED]:
        say(f"  {one.action} {one.path}: {one.reason}")
    if len(suggestions) > LISTED:
        say(f"  and {len(suggestions) - LISTED} more")
