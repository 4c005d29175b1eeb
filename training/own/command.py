"""The one command: look, fit, write, say, show. And the audit: look, say, show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from models.errors import BundleError
from models.store import Bundle, open_bundle
from training.deploy.versions import check_new
from training.errors import DataError
from training.files import write_whole
from training.own import adding, tuning
from training.own.audit import Suggestion, apply, suggest, suspects, to_csv
from training.own.backbone import Backbone
from training.own.fitting import fit_head
from training.own.photos import collect
from training.own.publishing.bundle import check_source, engines, publish, publish_tuned
from training.own.report.describing import (
    Say,
    commands,
    describe,
    describe_answers,
    describe_bundle,
    describe_seen,
    describe_suggestions,
)
from training.own.report.render import render
from training.own.seen import Seen, see

SEARCH_SHARE = 0.25  # of the time given, for the features of all photos at all sizes that are compared


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


def run(options: Options, say: Say, *, started: float) -> None:
    """`started`: time.monotonic of the command. Raises TrainingError."""
    check_new(options.out)
    bundle, backbone, seen = _look(options, say, options.seconds * SEARCH_SHARE)
    outcome = fit_head(seen, options.seed)
    describe_answers("the classifier alone", outcome.judged, seen, say)
    left = options.seconds - (time.monotonic() - started)
    planned = tuning.plan(seen, bundle, backbone, left, head_only=options.head_only)
    say(planned.reason)
    tuned, answers, title = None, outcome.judged, options.photos.stem
    if planned.epochs:
        tuned = tuning.tune(seen, outcome, bundle, planned, options.record / "tuning", options.seed, say)
    if tuned:
        describe_answers("fine-tuned", tuned.answers, seen, say)
        if tuning.is_better(tuned.answers, outcome.judged):
            answers = tuned.answers
        say(
            "the fine-tuned network is kept" if answers is tuned.answers else "the classifier alone is better, and kept"
        )
    if tuned and answers is tuned.answers:
        written = publish_tuned(bundle, tuned.bundle, answers, options.out, title)
    else:
        written = publish(bundle, backbone, outcome.fitted.head, seen, answers, options.out, title)
    describe_bundle(written, engines(written.folder), say, time.monotonic() - started)
    facts = [
        ("network", f"{bundle.manifest.network.variant} of {bundle.manifest.name}/{bundle.manifest.version}"),
        ("image size", f"{seen.size} pixels"),
        ("learnt", "the whole network" if answers is not outcome.judged else "its classifier"),
    ]
    suggestions = suggest(seen, outcome.held_out)
    curves = tuned.curves if tuned else ()
    page = render(title, seen, answers, suggestions, facts=facts, commands=commands(written), curves=curves)
    _record(options, page, suggestions, say)


def add(options: Options, say: Say, *, started: float) -> None:
    """New classes beside those of the bundle. Raises TrainingError."""
    check_new(options.out)
    bundle, backbone, seen = _look(options, say, search_s=0.0)
    seen, head, answers = adding.add(seen, bundle, backbone, options.seed)
    describe_answers(f"{len(bundle.labels)} classes as they were, {len(seen.classes)} now", answers, seen, say)
    written = publish(bundle, backbone, head, seen, answers, options.out, options.photos.stem)
    describe_bundle(written, engines(written.folder), say, time.monotonic() - started)


def audit(options: Options, say: Say, *, started: float) -> None:
    """Raises TrainingError."""
    _, _, seen = _look(options, say, options.seconds * SEARCH_SHARE)
    try:
        answers = suspects(seen, options.seed)
    except DataError as error:
        say(f"labels are not doubted: {error}")
        answers = None
    suggestions = suggest(seen, answers)
    describe_suggestions(suggestions, say)
    title = f"Audit of {options.photos.stem}"
    facts = [("photos", str(len(seen.photos))), ("classes", str(len(seen.classes)))]
    _record(options, render(title, seen, answers, suggestions, facts=facts), suggestions, say)
    say(f"{time.monotonic() - started:.0f} s. Edit the column action of suggestions.csv, and give it to the next run:")
    say(f"  --suggestions {options.record / 'suggestions.csv'}")


def _look(options: Options, say: Say, search_s: float) -> tuple[Bundle, Backbone, Seen]:
    collection = collect(options.photos, options.group_pattern)
    if options.suggestions:
        collection = apply(collection, options.suggestions)
    describe(collection, say)
    bundle, backbone = open_base(options.base)
    spec = bundle.manifest.preprocess
    seen = see(collection, backbone, spec, seed=options.seed, seconds=search_s)
    describe_seen(seen, say)
    return bundle, backbone, seen


def open_base(name: str) -> tuple[Bundle, Backbone]:
    """Raises DataError unless the bundle is there and answers as it should."""
    if name.endswith(".ckpt"):
        raise DataError(f"--from {name} is a checkpoint: make a bundle of it first, with training.export --bundle")
    try:
        bundle = open_bundle(name)
    except BundleError as error:
        raise DataError(f"--from {name}: {error}") from error
    backbone = Backbone(bundle)
    check_source(bundle, backbone)
    return bundle, backbone


def _record(options: Options, page: bytes, suggestions: list[Suggestion], say: Say) -> None:
    write_whole(options.record / "report.html", page)
    write_whole(options.record / "suggestions.csv", to_csv(suggestions))
    say(f"{options.record / 'report.html'}: what it learnt, where it fails, and what may be wrong with the photos")
