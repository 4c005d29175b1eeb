"""report.html: one file that shows what was learnt, where it fails, and what is wrong with the photos.

1. nothing is loaded from elsewhere, and names of files and classes never become markup;
2. every wrong answer can be viewed, up to a number that keeps the file small.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from training.own.audit import Suggestion, to_csv
from training.own.classifier.figures import SMALL_CLASS, Answers
from training.own.seen import Seen

PAGE = Path(__file__).parent / "page"
BEST = 3  # answers of a photo that are shown, the true one always among them
WRONG, RIGHT = 400, 400  # photos in the cells of the confusion matrix, at most
SHOWN = 24  # photos of a section
CONFUSIONS = 60
BINS = 20


def render(
    title: str,
    seen: Seen,
    answers: Answers | None,
    suggestions: Sequence[Suggestion],
    *,
    facts: Sequence[tuple[str, str]] = (),
    commands: Sequence[str] = (),
    notes: Sequence[str] = (),
    curves: Sequence[dict[str, Any]] = (),
    augmented: Sequence[bytes] = (),
    heat: Mapping[int, bytes] = MappingProxyType({}),
) -> bytes:
    """`answers`: what the accuracy is measured on, if there is any; `curves`: {title, lines: [{name, points}]};
    `augmented`: JPEGs, each a photo and its augmented versions; `heat`: JPEGs by photo, for mistakes."""
    doubted = [one for one in suggestions if one.score is not None and one.index is not None]
    odd = [one for one in suggestions if one.score is None and one.index is not None and "equal to" not in one.reason]
    record: dict[str, Any] = {
        "title": title,
        "facts": [*facts],
        "commands": [*commands],
        "notes": [*notes],
        "curves": [*curves],
        "augmented": [base64.b64encode(one).decode() for one in augmented],
        "heat": {index: base64.b64encode(one).decode() for index, one in heat.items()},
        "suspects": [{"index": one.index, "words": one.reason} for one in doubted[:SHOWN]],
        "odd": [{"index": one.index, "words": one.reason} for one in odd[:SHOWN]],
        "pairs": [_pair(seen, pair) for pair in seen.copies[:SHOWN]],
        "broken": [(photo.path.name, problem) for photo, problem in seen.broken],
        "suggestions": base64.b64encode(to_csv(suggestions)).decode() if suggestions else "",
        **_histograms(seen),
    }
    record |= _judged(seen, answers) if answers else {"verdict": None, "matrix": None}
    wanted = [one["index"] for one in (*record["suspects"], *record["odd"])]
    wanted += [index for pair in record["pairs"] for index in (pair["first"], pair["second"])]
    rows = {int(index): row for row, index in enumerate(answers.photos)} if answers else {}
    wanted += record.pop("cells", [])
    record["photos"] = {index: _photo(seen, index, answers, rows.get(index)) for index in dict.fromkeys(wanted)}
    # "</" would end the script; a JSON string may write it with a backslash.
    text = json.dumps(record, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    page = (PAGE / "report.html").read_text()
    for mark, content in (("STYLE", (PAGE / "report.css").read_text()), ("SCRIPT", (PAGE / "report.js").read_text())):
        page = page.replace(f"/*{mark}*/", content)
    return page.replace("/*RECORD*/", text).encode()


def _judged(seen: Seen, answers: Answers) -> dict[str, Any]:
    low, high = answers.interval
    scores, wrong = answers.scores, answers.given != answers.labels
    best = np.sort(scores, axis=1)
    mistakes = answers.mistakes
    unsure = np.argsort(best[:, -1] - best[:, -2], kind="stable")
    right = [row for row in np.random.default_rng(0).permutation(len(wrong)) if not wrong[row]]
    each = max(1, RIGHT // len(seen.classes))
    shown = [
        *mistakes[:WRONG],
        *unsure[:SHOWN],
        *(row for label in range(len(seen.classes)) for row in [r for r in right if answers.labels[r] == label][:each]),
    ]
    number = {name: index for index, name in enumerate(seen.classes)}
    confused = [(number[true], number[given]) for true, given, _ in answers.confusions(seen.classes, CONFUSIONS)]
    return {
        "verdict": {
            "accuracy": answers.accuracy,
            "low": low,
            "high": high,
            "how": answers.how,
            "photos": len(answers.labels),
            "macro_f1": answers.macro_f1(seen.classes),
            "temperature": answers.temperature,
        },
        "matrix": answers.confusion.tolist(),
        "confusions": confused,
        "classes": [
            {
                "label": one.label,
                "images": one.images,
                "recall": one.recall,
                "low": one.interval[0],
                "high": one.interval[1],
                "precision": one.precision,
                "f1": one.f1,
                "small": one.images < SMALL_CLASS,
            }
            for one in answers.classes(seen.classes)
        ],
        "mistakes": [int(answers.photos[row]) for row in mistakes[:SHOWN]],
        "unsure": [int(answers.photos[row]) for row in unsure[:SHOWN]],
        "cells": [int(answers.photos[row]) for row in shown],
    }


def _photo(seen: Seen, index: int, answers: Answers | None, row: int | None) -> dict[str, Any]:
    photo = seen.photos[index]
    shown: dict[str, Any] = {
        "src": base64.b64encode(seen.looks[index].thumbnail).decode(),
        "name": photo.path.name,
        "label": photo.label,
        "answers": [],
    }
    if answers is not None and row is not None:
        truth, best = answers.labels[row], np.argsort(-answers.scores[row], kind="stable")[:BEST]
        if truth not in best:
            best[-1] = truth
        shown["answers"] = [(seen.classes[one], round(float(answers.scores[row, one]), 4)) for one in best]
        shown |= {"truth": int(truth), "given": int(answers.given[row])}
    return shown


def _pair(seen: Seen, pair: Any) -> dict[str, Any]:
    first, second = seen.photos[pair.first], seen.photos[pair.second]
    words = f"{first.path.name} and {second.path.name}: {'equal files' if pair.equal else 'nearly equal'}"
    leak = (first.split or "train") != (second.split or "train")
    if first.label != second.label:
        words += f", but labelled {first.label} and {second.label}"
    if leak:
        words += f", in {first.split or 'train'} and {second.split or 'train'}"
    return {"first": pair.first, "second": pair.second, "words": words, "warn": leak or first.label != second.label}


def _histograms(seen: Seen) -> dict[str, Any]:
    """Each: bins, the meaning of the left end, the meaning of the right end."""
    sides = np.array([min(look.size) for look in seen.looks])
    low, high = int(sides.min()), int(sides.max())
    counts = np.sort(np.bincount(seen.labels, minlength=len(seen.classes)))[::-1]
    bright = np.histogram([look.brightness for look in seen.looks], BINS, (0, 1))[0]
    return {
        "sides": (np.histogram(sides, BINS, (low, high + 1))[0].tolist(), str(low), str(high)),
        "brightness": (bright.tolist(), "black", "white"),
        "counts": (counts.tolist(), str(counts[0]), str(counts[-1])),
    }
