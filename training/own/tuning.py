"""Fine-tuning of the whole network, in processes of its own: training.train and training.export, which need MindSpore.

1. it is tried if data and time allow, and the reason for or against it is one sentence;
2. the time limit is kept: a run that takes longer is stopped, and its weights so far are used;
3. it starts with the classifier that was fitted without the photos held out, since a random one would first distort the
   network's features (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features");
4. the tuned network is published unless it is worse than the new classifier alone, on photos that neither saw, and that
   chose nothing else;
5. if time allows, the published network has also learnt from the held-out photos, in a second run like the first, which
   was judged;
6. if it fails or is interrupted, the best result so far is used, and the output says so.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.scores.temperature import fit_temperature
from models.store import Bundle, open_bundle
from training.errors import TrainingError
from training.own.backbone import Backbone, Floats
from training.own.classifier.figures import Answers
from training.own.classifier.folds import FOLDS
from training.own.classifier.head import surprises
from training.own.fitting import Outcome
from training.own.mirroring import measure
from training.own.photos.looking import look
from training.own.processes import last_words, run_verb
from training.own.publishing.bundle import draft
from training.own.seen import Seen
from training.own.sizes import seconds_each
from weights.variants import VARIANTS

RECIPE = Path(__file__).parents[1] / "recipes" / "finetune.yaml"
LEAST_PHOTOS, LEAST_EPOCHS, MOST_EPOCHS = 100, 5, 40
# A training step against inference of the same image by ONNX Runtime: 4.2 in a run of 240 photos (RepVGG-Small, 160
# pixels). The run itself measures its epochs, and makes fewer of them if they are slower.
STEP_COST = 4.5
START_S, EXPORT_S = 45.0, 60.0  # until the first step; from the last step to a bundle
IMPORT_S = 15.0  # until a run begins to count its time
BATCH = 32
EVALUATIONS = 8  # of a run, for the report's curves: they choose nothing, since 60 photos cannot
# Where logistic regression does best with a weaker penalty than this, the classes differ in what is small in the
# features, and the network has to learn other ones. Of three sets, hand signs (0.37) gained from that, flowers (0.07)
# did not, and insects (0.01) lost.
WEAK_PENALTY = 0.2
FAR = {"backbone_lr": 1.0, "kernel_norms": True}
AUGMENTED = 8  # photos that the report shows
LEAST_OF_AGAIN = 0.6  # of the epochs of the first run, without which a second one is not begun


@dataclass(frozen=True)
class Plan:
    """`epochs` is 0 where only a classifier is fitted; `seconds`: when the run is stopped."""

    epochs: int
    seconds: float
    reason: str


@dataclass(frozen=True)
class Pace:
    """What a run took: its epochs, and the seconds of each, of everything before and of its export."""

    epochs: int
    epoch_s: float
    start_s: float
    export_s: float


@dataclass(frozen=True)
class Tuned:
    """`answers` on the photos that its run was evaluated on, or on the test split if there is one, by `judged`, which
    is the bundle itself unless that learnt from those photos afterwards; `augmented`: JPEGs, each a photo and what
    augmentation makes of it; `flags`: of its run, but for photos, start and epochs."""

    bundle: Bundle
    judged: Bundle
    answers: Answers
    curves: list[dict[str, Any]]
    augmented: tuple[bytes, ...]
    flags: tuple[str | Path, ...]
    pace: Pace


def plan(seen: Seen, bundle: Bundle, backbone: Backbone, seconds: float, *, head_only: bool) -> Plan:
    """`seconds`: what is left of the time given."""
    photos, least = int(seen.fitted.sum()), int(np.bincount(seen.labels[seen.fitted]).min())
    variant = bundle.manifest.network.variant
    epoch = photos * STEP_COST * seconds_each(backbone, seen.size)
    left = seconds - START_S - EXPORT_S
    against = None
    if head_only:
        against = "as asked (--head-only)"
    elif find_spec("mindspore") is None:
        against = "since fine-tuning needs MindSpore: pip install 'repvgg[train]'"
    elif variant not in VARIANTS:
        against = f"since {variant} is not of the RepVGG family, which training can build"
    elif photos < LEAST_PHOTOS or least < 2 * BATCH // 16:
        against = f"since {photos} photos, {least} of the smallest class, are too few to fine-tune a whole network"
    elif left < LEAST_EPOCHS * epoch:
        against = f"since fine-tuning takes about {epoch:.0f} s an epoch, and {max(0.0, seconds):.0f} s are left"
    if against:
        return Plan(0, 0.0, f"only the classifier is fitted, {against}")
    first = _share_of_first(seconds, epoch, twice=not _has_val(seen))
    epochs = min(MOST_EPOCHS, int((first - START_S - EXPORT_S) / epoch))
    reason = (
        f"fine-tuning as well, {epochs} epochs of about {epoch:.0f} s: {photos} photos and {seconds:.0f} s allow it"
    )
    return Plan(epochs, first - EXPORT_S, reason)


def _share_of_first(seconds: float, epoch: float, *, twice: bool) -> float:
    """How much of the time the first run gets; another one, on all photos, takes the rest if both can be made."""
    fixed = START_S + EXPORT_S
    half = fixed + (seconds - 2 * fixed) * (FOLDS - 1) / (2 * FOLDS - 1)
    return half if twice and half - fixed >= LEAST_EPOCHS * epoch else seconds


def tune(
    seen: Seen,
    outcome: Outcome,
    base: Bundle,
    backbone: Backbone,
    planned: Plan,
    folder: Path,
    seed: int,
    say: Callable[[str], None],
) -> Tuned | None:
    """Work in `folder`, which is emptied first -> the tuned network; None, and a line, if there is none."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        held_out = _lay_out(seen, outcome, folder / "photos")
        start = _start(seen, outcome, (base, backbone), folder / "start" / "1")
    except OSError as error:
        say(f"no fine-tuning: {folder} cannot be written: {error.strerror}")
        return None
    except TrainingError as error:
        say(f"no fine-tuning: {error}")
        return None
    mirroring = measure(seen, outcome, backbone, base.manifest.preprocess, seed)
    if mirroring.harms:
        say(str(mirroring))
    flags = _flags(seen, outcome, seed, mirrors=not mirroring.harms)
    images = (*flags, "--data_url", folder / "photos", "--pretrained", start.folder)
    more = _lengths(planned.epochs, max(1, planned.epochs // EVALUATIONS), _learnt_from(seen, outcome))
    try:
        bundle, pace = _run((*images, *more), planned.seconds, folder, "run", say)
    except TrainingError as error:
        say(f"{error}: the classifier alone remains")
        return None
    augmented = _augmented(images, folder, say)
    answers = _answers(seen, bundle, held_out)
    return Tuned(bundle, bundle, answers, _curves(folder / "run" / "log.jsonl"), augmented, flags, pace)


def _flags(seen: Seen, outcome: Outcome, seed: int, *, mirrors: bool) -> tuple[str | Path, ...]:
    """What all runs have in common."""
    flags: dict[str, object] = {"config": RECIPE, "image_size": seen.size, "seed": seed}
    flags["batch_size"] = min(BATCH, int(seen.fitted.sum()) // 4)
    flags["class_weights"] = "balanced" if outcome.balanced else "equal"
    flags |= {} if mirrors else {"hflip": 0.0}
    flags |= FAR if outcome.fitted.penalty > WEAK_PENALTY else {}
    return tuple(word for key, value in flags.items() for word in (f"--{key}", str(value)))


def _lengths(epochs: int, eval_interval: int, photos: int) -> tuple[str, ...]:
    """Averaged over about half of the updates: alone, the last weights were no better than a new classifier."""
    decay = 1 - 2 / max(4, epochs * photos // BATCH)
    return ("--epochs", str(epochs), "--eval_interval", str(eval_interval), "--ema_decay", f"{decay:.4f}")


def _run(
    flags: Sequence[str | Path], seconds: float, folder: Path, name: str, say: Callable[[str], None]
) -> tuple[Bundle, Pace]:
    """Train and export. Raises TrainingError if that gave nothing."""
    began, run, log = time.monotonic(), folder / name, folder / f"{name}.log"
    minutes = ("--minutes", str(max(1.0, seconds - IMPORT_S) / 60))
    failed = run_verb("train", [*flags, *minutes, "--save_dir", folder, "--name", name], seconds, log)
    if not (run / "last.ckpt").is_file() or not _lines(run / "log.jsonl"):
        raise TrainingError(f"fine-tuning gave nothing ({failed or 'no epoch was finished'}; {log})")
    if failed:
        say(f"fine-tuning {failed}; its weights so far are used")
    trained, written, log = time.monotonic(), folder / "store" / name / "1", folder / f"{name}-export.log"
    last = ("--pretrained", run / "last.ckpt", "--bundle", written, "--device_target", "CPU")
    if failed := run_verb("export", last, None, log):
        raise TrainingError(f"the tuned network could not be exported ({failed}; {log})")
    return open_bundle(written), _pace(run / "log.jsonl", trained - began, time.monotonic() - trained)


def _pace(log: Path, training_s: float, export_s: float) -> Pace:
    seconds = [float(line["seconds"]) for line in _lines(log)]
    epoch_s = median(seconds[1:] or seconds)
    return Pace(len(seconds), epoch_s, max(0.0, training_s - len(seconds) * epoch_s), export_s)


def again(
    tuned: Tuned,
    seen: Seen,
    outcome: Outcome,
    base: tuple[Bundle, Backbone],
    folder: Path,
    seconds: float,
    say: Callable[[str], None],
) -> Tuned:
    """The same run on all photos that may be fitted on, those held out from the first one among them; `tuned` itself
    where `seconds` are too few or it fails, which is said. Nothing was held out where there is a val."""
    if _has_val(seen):
        return tuned
    pace, photos, first = tuned.pace, int(seen.fitted.sum()), _learnt_from(seen, outcome)
    needed, left = pace.epochs * pace.epoch_s * photos / first, seconds - pace.start_s - pace.export_s
    if left < LEAST_OF_AGAIN * needed:
        say(f"no second run on all {photos} photos, which takes {needed:.0f} s more: {max(0.0, left):.0f} s are left")
        return tuned
    say(f"the same run again, on all {photos} photos")
    try:
        for side, chosen in (("train", seen.fitted), ("val", outcome.folds == 0)):
            _link(seen, np.flatnonzero(chosen).tolist(), folder / "all" / side)
        start = draft(*base, outcome.fitted.head, seen, outcome.judged, folder / "start" / "2", "photos")
        lengths = _lengths(pace.epochs, pace.epochs, photos)
        flags = (*tuned.flags, "--data_url", folder / "all", "--pretrained", start.folder, *lengths)
        bundle, _ = _run(flags, seconds - pace.export_s, folder, "again", say)
    except (OSError, TrainingError) as error:
        say(f"{error}: the network of the first run remains")
        return tuned
    return _learnt_from_all(tuned, seen, bundle, photos)


def _learnt_from_all(tuned: Tuned, seen: Seen, bundle: Bundle, photos: int) -> Tuned:
    """`bundle` answers the test split, if there is one; else what the first run's network answered stands for it."""
    old = tuned.answers
    if seen.judged_by == "test":
        logits = _logits(seen, bundle, old.photos.tolist())
        return replace(tuned, bundle=bundle, judged=bundle, answers=replace(old, logits=logits))
    how = f"held out from a first run, {len(old.labels)} photos; the network then learnt from all {photos} alike"
    return replace(tuned, bundle=bundle, answers=replace(old, how=how))


def _augmented(flags: Sequence[str | Path], folder: Path, say: Callable[[str], None]) -> tuple[bytes, ...]:
    """For some of the photos a JPEG of what augmentation makes of it; none, and a line, if they cannot be drawn."""
    strips, log = folder / "augmented", folder / "augmented.log"
    wanted: list[str | Path] = ["--save-strips", strips, "--images", str(AUGMENTED), "--verify_images", "headers"]
    if run_verb("data", [*flags, *wanted], None, log):
        say(f"the report cannot show what augmentation does: {last_words(log)}")
        return ()
    return tuple(path.read_bytes() for path in sorted(strips.iterdir()))


def _start(seen: Seen, outcome: Outcome, base: tuple[Bundle, Backbone], out: Path) -> Bundle:
    """The network with a classifier that no photo of val was fitted on. Raises TrainingError."""
    head = outcome.fitted.head if _has_val(seen) else outcome.fitted.heads[0]
    return draft(*base, head, seen, outcome.judged, out, "photos")


def _learnt_from(seen: Seen, outcome: Outcome) -> int:
    """Photos of the first run."""
    return int(seen.fitted.sum() if _has_val(seen) else (outcome.folds > 0).sum())


def _has_val(seen: Seen) -> bool:
    return any(photo.split == "val" for photo in seen.photos)


def is_better(tuned: Answers, alone: Answers) -> bool:
    """Whether the true labels of the photos that both answered are no more of a surprise to `tuned`, within the
    standard error: few photos say more by their scores than by right and wrong, and fine-tuning mostly gains."""
    of_tuned, of_alone = np.isin(tuned.photos, alone.photos), np.isin(alone.photos, tuned.photos)
    worse = _surprises(tuned, of_tuned) - _surprises(alone, of_alone)
    return bool(worse.mean() <= worse.std() / np.sqrt(len(worse)))


def _surprises(answers: Answers, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """By calibrated scores, in the order of the photos."""
    found = surprises(answers.logits[rows] / answers.temperature, answers.labels[rows])
    return found[np.argsort(answers.photos[rows])]


def _lay_out(seen: Seen, outcome: Outcome, root: Path) -> list[int]:
    """Links to the photos, as train/<class>/* and val/<class>/* -> the indices of val.

    Where no val is there, it is the first fold: a head that did not see it has answered it too.
    """
    sides = {"train": np.flatnonzero(outcome.folds > 0).tolist(), "val": np.flatnonzero(outcome.folds == 0).tolist()}
    if _has_val(seen):
        sides["train"] = np.flatnonzero(seen.fitted).tolist()
        sides["val"] = [index for index, photo in enumerate(seen.photos) if photo.split == "val"]
    for side, indices in sides.items():
        _link(seen, indices, root / side)
    held_out: list[int] = sides["val"]
    return held_out


def _link(seen: Seen, indices: Sequence[int], folder: Path) -> None:
    """The photos below `folder`, one folder for each class."""
    for index in indices:
        photo = seen.photos[index]
        link = folder / photo.label / f"{index:06}{photo.path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(photo.path.resolve())


def _answers(seen: Seen, bundle: Bundle, held_out: Sequence[int]) -> Answers:
    """The temperature is fitted on the photos held out; a test split, if there is one, is what is answered."""
    logits, labels = _logits(seen, bundle, held_out), seen.labels[held_out]
    temperature = fit_temperature(logits, labels.tolist()) or 1.0
    how, indices = f"held out from the run, {len(labels)} photos", list(held_out)
    if seen.judged_by == "test":
        indices = np.flatnonzero(seen.judged).tolist()
        logits, labels = _logits(seen, bundle, indices), seen.labels[indices]
    if seen.judged_by:
        how = f"{seen.judged_by} split, {len(labels)} photos"
    return Answers(np.asarray(indices, np.int64), labels, logits, temperature, how)


def _logits(seen: Seen, bundle: Bundle, indices: Sequence[int]) -> Floats:
    """(N, K), classes as in `seen`."""
    backbone, spec = Backbone(bundle), bundle.manifest.preprocess
    looks = look([seen.photos[index].path for index in indices], [spec], backbone.compute, "evaluate")
    order = [bundle.labels.index(name) for name in seen.classes]
    return backbone.classifier()(np.stack([one.features[spec.input_size] for one in looks]))[:, order]


def _lines(log: Path) -> list[dict[str, Any]]:
    """One for each finished epoch."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def _curves(log: Path) -> list[dict[str, Any]]:
    lines = _lines(log)

    def points(key: str) -> dict[str, Any]:
        return {"name": key.replace("_", " "), "points": [(line["epoch"], line[key]) for line in lines if key in line]}

    charts = (("accuracy", ("val_top1", "train_top1")), ("loss", ("loss",)))
    return [{"title": title, "lines": [points(key) for key in keys]} for title, keys in charts]
