"""The one command: check the photos, fit, write, report. And the audit: check the photos, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.explanation.head import Head
from models.store import Bundle
from training.deploy.versions import check_new
from training.errors import DataError
from training.own import adding, tuning
from training.own.audit import Suggestion, apply, suggest, suspects, to_csv
from training.own.backbone import Backbone
from training.own.base import open_base
from training.own.classifier.figures import Answers
from training.own.fitting import Outcome, fit_head
from training.own.photos.collection import collect
from training.own.publishing.addition import Addition
from training.own.publishing.bundle import draft, engines, facts_of_tuned, publish
from training.own.publishing.int8 import int8
from training.own.publishing.mindir import mindir
from training.own.report.describing import (
    Say,
    commands,
    describe,
    describe_answers,
    describe_bundle,
    describe_seen,
    describe_suggestions,
)
from training.own.report.heat import heat_maps
from training.own.report.render import SHOWN, render
from training.own.seen import Seen, see
from training.own.tuning import Tuned
from training.storage.files import write_whole

SEARCH_SHARE = 0.25  # share of the available time for the features of all photos at all compared sizes
CHECKS_S = 20.0  # for the checks of every engine, and for the report
FP32 = Path("fp32", "1")  # the first draft: a bundle's name and version


@dataclass(frozen=True)
class Options:
    """The flags of training.start."""

    photos: Path
    out: Path
    base: str
    seconds: float
    head_only: bool
    group_pattern: str | None
    seed: int
    suggestions: Path | None
    record: Path


@dataclass(frozen=True)
class Learnt:
    """`draft`: the network as a bundle in fp32; `judged`: the one whose answers they are, which may have learnt from
    fewer photos; `heads`: as in publishing.int8; `facts`: of its manifest."""

    draft: Bundle
    judged: Bundle
    answers: Answers
    heads: dict[int, tuple[NDArray[np.bool_], Head]]
    facts: dict[str, Any]


def run(options: Options, say: Say, *, started: float) -> None:
    """`started`: time.monotonic of the command. Raises TrainingError."""
    check_new(options.out)
    bundle, backbone, seen = _look(options, say, options.seconds * SEARCH_SHARE)
    outcome = fit_head(seen, options.seed)
    describe_answers("the classifier alone", outcome.judged, seen, say)
    left, tuned = _left(options, started), None
    with _interruptible(say, "the classifier alone remains"):
        tuned = _tune(options, seen, outcome, bundle, backbone, say, left)
    title = options.photos.stem
    with _drafts(options) as folder:
        if tuned and _is_kept(tuned, outcome, say):
            left, start = _left(options, started) - CHECKS_S, (bundle, backbone)
            with _interruptible(say, "the network of the first run remains"):
                tuned = tuning.again(tuned, seen, outcome, start, options.record / "tuning", left, say)
            facts = facts_of_tuned(bundle, tuned.bundle, tuned.answers, title)
            learnt = Learnt(tuned.bundle, tuned.judged, tuned.answers, {}, facts)
        else:
            written = draft(bundle, backbone, outcome.fitted.head, seen, outcome.judged, folder / FP32, title)
            learnt = Learnt(written, written, outcome.judged, outcome.judging, {})
        written = _publish(learnt, options, seen, folder, say, started)
    rows = [
        ("network", f"{bundle.manifest.network.variant} of {bundle.manifest.name}/{bundle.manifest.version}"),
        ("image size", f"{seen.size} pixels"),
        ("learnt", "its classifier" if learnt.answers is outcome.judged else "the whole network"),
    ]
    suggestions = suggest(seen, outcome.held_out)
    page = render(
        title,
        seen,
        learnt.answers,
        suggestions,
        facts=rows,
        commands=commands(written),
        curves=tuned.curves if tuned else (),
        augmented=tuned.augmented if tuned else (),
        heat=heat_maps(
            written if learnt.judged is learnt.draft else learnt.judged, seen, learnt.answers, learnt.heads, SHOWN
        ),
    )
    _record(options, page, suggestions, say)


def _tune(
    options: Options, seen: Seen, outcome: Outcome, bundle: Bundle, backbone: Backbone, say: Say, seconds: float
) -> Tuned | None:
    planned = tuning.plan(seen, bundle, backbone, seconds, head_only=options.head_only)
    say(planned.reason)
    if not planned.epochs:
        return None
    tuned = tuning.tune(seen, outcome, bundle, backbone, planned, options.record / "tuning", options.seed, say)
    if tuned:
        describe_answers("fine-tuned", tuned.answers, seen, say)
    return tuned


def _is_kept(tuned: Tuned, outcome: Outcome, say: Say) -> bool:
    kept = tuning.is_better(tuned.answers, outcome.judged)
    say("the fine-tuned network is kept" if kept else "the classifier alone is better, and kept")
    return kept


def _publish(learnt: Learnt, options: Options, seen: Seen, folder: Path, say: Say, started: float) -> Bundle:
    more, checked = [], ["interrupted: the engines were not checked"]
    with _interruptible(say, "the bundle is written without what is not ready"):
        more.append(_int8(learnt, seen, folder, _left(options, started) - CHECKS_S, say))
        more.append(mindir(learnt.draft, folder, _left(options, started) - CHECKS_S, say))
    written = publish(learnt.draft, options.out, more, learnt.facts)
    with _interruptible(say, f"{written.folder} is written"):
        checked = engines(written.folder)
    describe_bundle(written, checked, say, time.monotonic() - started)
    return written


def _int8(learnt: Learnt, seen: Seen, folder: Path, seconds: float, say: Say) -> Addition | None:
    if learnt.judged is not learnt.draft:
        say("no int8: the network learnt from all photos, and only a test split could tell what rounding costs")
        return None
    return int8(learnt.draft, seen, learnt.answers, learnt.heads, folder, seconds, say)


@contextmanager
def _interruptible(say: Say, rest: str) -> Iterator[None]:
    """Ctrl-C ends the block, and not the command."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {rest}")


def _left(options: Options, started: float) -> float:
    """Seconds of the available time."""
    return options.seconds - (time.monotonic() - started)


@contextmanager
def _drafts(options: Options) -> Iterator[Path]:
    """An empty folder for unfinished work, which is removed with the block."""
    folder = options.record / "drafts"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def add(options: Options, say: Say, *, started: float) -> None:
    """New classes next to those of the bundle. Raises TrainingError."""
    check_new(options.out)
    bundle, backbone, seen = _look(options, say, search_s=0.0)
    seen, head, answers = adding.add(seen, bundle, backbone, options.seed)
    describe_answers(f"{len(bundle.labels)} classes as they were, {len(seen.classes)} now", answers, seen, say)
    with _drafts(options) as folder:
        drafted = draft(bundle, backbone, head, seen, answers, folder / FP32, options.photos.stem)
        written = publish(drafted, options.out, [mindir(drafted, folder, _left(options, started) - CHECKS_S, say)], {})
    describe_bundle(written, engines(written.folder), say, time.monotonic() - started)


def audit(options: Options, say: Say, *, started: float) -> None:
    """Raises TrainingError."""
    _, _, seen = _look(options, say, options.seconds * SEARCH_SHARE)
    try:
        answers = suspects(seen, options.seed)
    except DataError as error:
        say(f"labels are not checked: {error}")
        answers = None
    suggestions = suggest(seen, answers)
    describe_suggestions(suggestions, say)
    title = f"Audit of {options.photos.stem}"
    facts = [("photos", str(len(seen.photos))), ("classes", str(len(seen.classes)))]
    _record(options, render(title, seen, answers, suggestions, facts=facts), suggestions, say)
    say(f"{time.monotonic() - started:.0f} s. Edit the column action of suggestions.csv, and pass it to the next run:")
    say(f"  --suggestions {options.record / 'suggestions.csv'}")


def _look(options: Options, say: Say, search_s: float) -> tuple[Bundle, Backbone, Seen]:
    collection = collect(options.photos, options.group_pattern)
    if options.suggestions:
        collection = apply(collection, options.suggestions)
    describe(collection, say)
    bundle, backbone = open_base(options.base, options.record / "base")
    spec = bundle.manifest.preprocess
    seen = see(collection, backbone, spec, seed=options.seed, seconds=search_s)
    describe_seen(seen, say)
    return bundle, backbone, seen


def _record(options: Options, page: bytes, suggestions: list[Suggestion], say: Say) -> None:
    write_whole(options.record / "report.html", page)
    write_whole(options.record / "suggestions.csv", to_csv(suggestions))
    say(f"{options.record / 'report.html'}: what it learnt, where it fails, and what may be wrong with the photos")
