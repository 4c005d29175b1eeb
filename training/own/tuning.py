"""Fine-tuning of the whole network, in processes of its own: training.train and training.export, which need MindSpore.

1. it is tried if data and time allow, and the reason for or against it is one sentence;
2. the time limit is kept: a run that takes longer is stopped, and its best weights are used;
3. it starts with the classifier that was fitted without the photos held out, since a random one would first distort the
   network's features (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features");
4. the tuned network is published only if it is better than the new classifier alone, on photos that neither saw;
5. if it fails or is interrupted, the classifier alone is used, and the output says so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from models.scores.temperature import fit_temperature
from models.store import Bundle, open_bundle
from training.errors import TrainingError
from training.own.backbone import Backbone
from training.own.classifier.figures import Answers
from training.own.classifier.head import surprises
from training.own.fitting import Outcome
from training.own.photos.looking import look
from training.own.processes import last_words, run_verb
from training.own.publishing.bundle import draft
from training.own.seen import Seen
from training.own.sizes import seconds_each
from weights.variants import VARIANTS

RECIPE = Path(__file__).parents[1] / "recipes" / "finetune.yaml"
LEAST_PHOTOS, LEAST_EPOCHS, MOST_EPOCHS = 100, 5, 30
# A training step against inference of the same image by ONNX Runtime, measured on two cores (RepVGG-Tiny at 32 pixels).
STEP_COST = 12.0
START_S, EXPORT_S = 45.0, 60.0  # until the first step; from the last step to a bundle
BATCH = 32
AUGMENTED = 8  # photos that the report shows


@dataclass(frozen=True)
class Plan:
    """`epochs` is 0 if only a classifier is fitted; `seconds`: when the run is stopped."""

    epochs: int
    seconds: float
    reason: str


@dataclass(frozen=True)
class Tuned:
    """`answers` on the photos that its run was evaluated on, or on the test split if there is one; `augmented`: JPEGs,
    each a photo and its augmented versions."""

    bundle: Bundle
    answers: Answers
    curves: list[dict[str, Any]]
    augmented: tuple[bytes, ...] = ()


def plan(seen: Seen, bundle: Bundle, backbone: Backbone, seconds: float, *, head_only: bool) -> Plan:
    """`seconds`: the time that is left."""
    photos, least = int(seen.fitted.sum()), int(np.bincount(seen.labels[seen.fitted]).min())
    variant = bundle.manifest.network.variant
    epoch = photos * STEP_COST * seconds_each(backbone, seen.size)
    left = seconds - START_S - EXPORT_S
    epochs = min(MOST_EPOCHS, int(left / epoch))
    against = None
    if head_only:
        against = "as asked (--head-only)"
    elif find_spec("mindspore") is None:
        against = "since fine-tuning needs MindSpore: pip install 'repvgg[train]'"
    elif variant not in VARIANTS:
        against = f"since {variant} is not of the RepVGG family, which training can build"
    elif photos < LEAST_PHOTOS or least < 2 * BATCH // 16:
        against = f"since {photos} photos, {least} of the smallest class, are too few to fine-tune a whole network"
    elif epochs < LEAST_EPOCHS:
        against = f"since fine-tuning takes about {epoch:.0f} s an epoch, and {max(0.0, seconds):.0f} s are left"
    if against:
        return Plan(0, 0.0, f"only the classifier is fitted, {against}")
    reason = (
        f"fine-tuning as well, {epochs} epochs of about {epoch:.0f} s: {photos} photos and {seconds:.0f} s allow it"
    )
    return Plan(epochs, seconds - EXPORT_S, reason)


def tune(
    seen: Seen, outcome: Outcome, base: Bundle, planned: Plan, folder: Path, seed: int, say: Callable[[str], None]
) -> Tuned | None:
    """Work in `folder`, which is emptied first -> the tuned network; None, and a line, if there is none."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        held_out = _lay_out(seen, outcome, folder / "photos")
        start = _start(seen, outcome, base, folder / "start" / "1")
    except OSError as error:
        say(f"no fine-tuning: {folder} cannot be written: {error.strerror}")
        return None
    except TrainingError as error:
        say(f"no fine-tuning: {error}")
        return None
    images: list[str | Path] = ["--config", RECIPE, "--data_url", folder / "photos", "--pretrained", start.folder]
    images += ["--image_size", str(seen.size), "--seed", str(seed)]
    flags = [*images, "--epochs", str(planned.epochs)]
    flags += [
        "--eval_interval",
        str(max(1, planned.epochs // 8)),
        "--batch_size",
        str(min(BATCH, int(seen.fitted.sum()) // 4)),
    ]
    flags += ["--class_weights", "balanced" if outcome.balanced else "equal", "--patience", str(planned.epochs // 2)]
    run = folder / "run"
    failed = run_verb(
        "train", [*flags, "--save_dir", folder, "--name", run.name], planned.seconds, folder / "train.log"
    )
    if not (run / "best.ckpt").is_file():
        why = failed or "no epoch was evaluated"
        say(f"fine-tuning had no result ({why}; {folder / 'train.log'}): the classifier alone remains")
        return None
    if failed:
        say(f"fine-tuning {failed}; its best weights so far are used")
    written = folder / "store" / "tuned" / "1"
    flags = ["--pretrained", run / "best.ckpt", "--bundle", written, "--device_target", "CPU"]
    failed = run_verb("export", flags, None, folder / "export.log")
    if failed:
        say(
            f"the tuned network could not be exported ({failed}; {folder / 'export.log'}); the classifier alone remains"
        )
        return None
    bundle = open_bundle(written)
    augmented = _augmented(images, folder, say)
    return Tuned(bundle, _answers(seen, bundle, held_out), _curves(run / "log.jsonl"), augmented)


def _augmented(flags: Sequence[str | Path], folder: Path, say: Callable[[str], None]) -> tuple[bytes, ...]:
    """A JPEG of augmented versions for some of the photos; none, and a line, if they cannot be drawn."""
    strips, log = folder / "augmented", folder / "augmented.log"
    wanted: list[str | Path] = ["--save-strips", strips, "--images", str(AUGMENTED), "--verify_images", "headers"]
    if run_verb("data", [*flags, *wanted], None, log):
        say(f"the report cannot show augmented photos: {last_words(log)}")
        return ()
    return tuple(path.read_bytes() for path in sorted(strips.iterdir()))


def _start(seen: Seen, outcome: Outcome, base: Bundle, out: Path) -> Bundle:
    """The network with a classifier that was not fitted on any photo of val. Raises TrainingError."""
    head = outcome.fitted.head if _has_val(seen) else outcome.fitted.heads[0]
    return draft(base, Backbone(base), head, seen, outcome.judged, out, "photos")


def _has_val(seen: Seen) -> bool:
    return any(photo.split == "val" for photo in seen.photos)


def is_better(tuned: Answers, alone: Answers) -> bool:
    """On the photos that both classified; the scores of the true labels break a tie in accuracy."""
    shared = np.isin(alone.photos, tuned.photos)
    right = int((alone.given == alone.labels)[shared].sum())
    if tuned.right != right:
        return tuned.right > right
    return bool(
        surprises(tuned.logits, tuned.labels).mean() < surprises(alone.logits[shared], alone.labels[shared]).mean()
    )


def _lay_out(seen: Seen, outcome: Outcome, root: Path) -> list[int]:
    """Links to the photos, as train/<class>/* and val/<class>/* -> the indices of val.

    Without a val split, it is the first fold, which a head that did not see it has also classified.
    """
    sides = {"train": np.flatnonzero(outcome.folds > 0).tolist(), "val": np.flatnonzero(outcome.folds == 0).tolist()}
    if _has_val(seen):
        sides["train"] = np.flatnonzero(seen.fitted).tolist()
        sides["val"] = [index for index, photo in enumerate(seen.photos) if photo.split == "val"]
    for side, indices in sides.items():
        for index in indices:
            photo = seen.photos[index]
            link = root / side / photo.label / f"{index:06}{photo.path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(photo.path.resolve())
    held_out: list[int] = sides["val"]
    return held_out


def _answers(seen: Seen, bundle: Bundle, held_out: Sequence[int]) -> Answers:
    """The temperature is fitted on the held-out photos; the answers are for the test split, if there is one."""
    backbone, spec = Backbone(bundle), bundle.manifest.preprocess
    head, order = backbone.classifier(), [bundle.labels.index(name) for name in seen.classes]

    def answer(indices: Sequence[int]) -> Any:
        looks = look([seen.photos[index].path for index in indices], [spec], backbone.compute, "evaluate")
        return head(np.stack([one.features[spec.input_size] for one in looks]))[:, order]

    logits, labels = answer(held_out), seen.labels[held_out]
    temperature = fit_temperature(logits, labels.tolist()) or 1.0
    how, indices = f"held out from the run, which chose its best epoch by them, {len(labels)} photos", list(held_out)
    if seen.judged_by == "test":
        indices = np.flatnonzero(seen.judged).tolist()
        logits, labels = answer(indices), seen.labels[indices]
    if seen.judged_by:
        how = f"{seen.judged_by} split, {len(labels)} photos"
    return Answers(np.asarray(indices, np.int64), labels, logits, temperature, how)


def _curves(log: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]

    def points(key: str) -> dict[str, Any]:
        return {"name": key.replace("_", " "), "points": [(line["epoch"], line[key]) for line in lines if key in line]}

    charts = (("accuracy", ("val_top1", "train_top1")), ("loss", ("loss",)))
    return [{"title": title, "lines": [points(key) for key in keys]} for title, keys in charts]
