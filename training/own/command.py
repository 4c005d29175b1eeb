"""The one command: look, fit, write, say."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.errors import BundleError
from models.store import Bundle, open_bundle
from training.data.names import listed
from training.deploy.versions import check_new
from training.errors import DataError
from training.own.backbone import Backbone
from training.own.fitting import Outcome, fit_head
from training.own.photos import Collection, collect
from training.own.publish import check_source, publish
from training.own.seen import Seen, see

SEARCH_SHARE = 0.25  # of the time given, for the features of all photos at all sizes that are compared
SMALL_CLASS = 20  # photos, under which a class's own accuracy says little
CONFUSIONS = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The flags of training.start."""

    photos: Path
    out: Path
    base: str
    seconds: float
    group_pattern: str | None
    seed: int


def run(options: Options, say: Say, *, started: float) -> None:
    """`started`: time.monotonic of the command. Raises TrainingError."""
    check_new(options.out)
    collection = collect(options.photos, options.group_pattern)
    describe(collection, say)
    bundle, backbone = open_base(options.base)
    seen = see(
        collection, backbone, bundle.manifest.preprocess, seed=options.seed, seconds=options.seconds * SEARCH_SHARE
    )
    describe_seen(seen, say)
    outcome = fit_head(seen, options.seed)
    written = publish(
        bundle, backbone, outcome.fitted.head, seen.size, seen.classes, outcome.judged, options.out, options.photos.stem
    )
    describe_outcome(outcome, seen, say)
    describe_bundle(written, say, time.monotonic() - started)


def open_base(name: str) -> tuple[Bundle, Backbone]:
    """Raises DataError unless the bundle is there and answers as it should."""
    try:
        bundle = open_bundle(name)
    except BundleError as error:
        raise DataError(f"--from {name}: {error}") from error
    backbone = Backbone(bundle)
    check_source(bundle, backbone)
    return bundle, backbone


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
        say(f"  {equal} pairs of equal files, {len(seen.copies) - equal} of near-duplicates: kept on one side")
    if seen.leaks:
        left_out = sum(photo.split in (None, "train") for photo in seen.photos) - int(seen.fitted.sum())
        say(f"  {len(seen.leaks)} pairs leak between splits: {left_out} photos of train are not fitted on")
    for size, (accuracy, surprise) in sorted(seen.compared.items()):
        mark = " <- chosen" if size == seen.size else ""
        say(f"  {size} pixels: {accuracy:.1%} right under cross-validation, log loss {surprise:.3f}{mark}")


def describe_outcome(outcome: Outcome, seen: Seen, say: Say) -> None:
    answers = outcome.judged
    low, high = answers.interval
    say(
        f"accuracy {answers.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}; {answers.how}), "
        f"macro-F1 {answers.macro_f1(seen.classes):.1%}, temperature {answers.temperature:.2f}"
    )
    for truth, answer, count in answers.confusions(seen.classes, CONFUSIONS):
        say(f"  {truth} taken for {answer}: {count}")
    small = [one.label for one in answers.classes(seen.classes) if one.images < SMALL_CLASS]
    if small:
        say(f"  fewer than {SMALL_CLASS} photos to judge by, so that their figures say little: {listed(small)}")


def describe_bundle(bundle: Bundle, say: Say, seconds: float) -> None:
    say(f"{bundle.folder}: written and checked, {seconds:.0f} s in all. Serve it, and open the page:")
    say(f"  .venv/bin/repvgg serve --model {bundle.folder}")
    say("  http://127.0.0.1:8000")
