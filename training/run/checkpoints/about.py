"""What a checkpoint says about itself, in every checkpoint that this code writes.

1. class names in their order, preprocessing, the whole recipe, a description of the images and the versions of the code
   are inside;
2. classes are compared by name, not by number;
3. a checkpoint of an older version, which says nothing, still loads, and one line says what was not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms

from models.manifest import Preprocess
from training.config import TrainConfig
from training.data.images import Images
from training.data.names import listed
from training.data.pipeline import evaluation_spec
from training.errors import CheckpointError
from training.run.checkpoints.commit import code_version

ENTRY = "about"  # JSON
# The keys of a recipe that say where and with what a run works, not what it computes. `pretrained` and its like act
# once, before the first step.
_SETTING = {
    *("pretrained", "reset_classifier", "stem_init", "data_url", "cache_dir", "dataset", "verify_images"),
    *(
        "num_parallel_workers",
        "device_target",
        "device_id",
        "save_dir",
        "name",
        "train_url",
        "resume",
        "resume_changed",
    ),
    *("checkpoint_minutes", "eval_interval", "patience", "minutes", "callbacks"),
}
_PREPROCESSING = ("image_size", "interpolation", "crop_pct", "mean", "std")
MEASURED = {*_PREPROCESSING, "classes", "images of val"}  # besides the weights, an accuracy depends on these
_NOT_INHERITED = _SETTING - {"data_url", "dataset"}


@dataclass(frozen=True)
class Change:
    """What differs between a checkpoint and now; `matters` where the result would have another meaning."""

    what: str
    before: object
    now: object
    matters: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.before} -> {self.now}"


@dataclass(frozen=True)
class About:
    """`recipe` holds the recipe's keys as JSON values, all of them or, for converted weights, those that are known;
    `images` describes each split that the run used."""

    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    images: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    framework: str = ""

    @property
    def entry(self) -> dict[str, str]:
        """As the entry of a checkpoint."""
        return {ENTRY: json.dumps(asdict(self), ensure_ascii=False)}

    def changes(self, now: About) -> list[Change]:
        """What differs now; a key that only one of the two versions of the code knows is left out."""
        found = [
            Change(key, before, now.recipe[key], key not in _SETTING)
            for key, before in self.recipe.items()
            if key in now.recipe and before != now.recipe[key]
        ]
        if self.classes != now.classes:
            found.append(Change("classes", listed(self.classes), listed(now.classes)))
        found += [
            Change(f"images of {split}", before, now.images.get(split))
            for split, before in self.images.items()
            if before != now.images.get(split)
        ]
        if self.code != now.code:
            found.append(Change("code", self.code, now.code, matters=False))
        return found


def of_run(config: TrainConfig, train: Images, val: Images, skipped: int = 0) -> About:
    """What the checkpoints of a run say; `skipped` counts the broken images that it leaves out."""
    images = {"train": _describe(train), "val": _describe(val)}
    if skipped:
        images["skipped"] = f"{skipped} broken images"
    return about(train.classes, config.model_dump(mode="json"), evaluation_spec(config), images)


def of_weights(classes: Sequence[str], arch: str, spec: Preprocess) -> About:
    """What a checkpoint of weights from elsewhere says."""
    keys = {"arch": arch, "num_classes": len(classes), "image_size": spec.input_size}
    spec_keys = spec.model_dump(mode="json")
    return about(classes, keys | {key: spec_keys[key] for key in _PREPROCESSING[1:] if key in spec_keys}, spec, {})


def about(classes: Sequence[str], recipe: Mapping[str, Any], spec: Preprocess, images: Mapping[str, str]) -> About:
    return About(tuple(classes), recipe, spec.model_dump(mode="json"), images, code_version(), framework())


def parse(saved: Mapping[str, Any], source: Path) -> About | None:
    """What the entries of a checkpoint say, or None for one of an older version. Raises CheckpointError."""
    if ENTRY not in saved:
        return None
    try:
        found = About(**json.loads(str(saved[ENTRY])))
        return About(**(vars(found) | {"classes": tuple(found.classes)}))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: its entry `{ENTRY}` cannot be read: {error}") from error


def check_classes(found: About | None, classes: Sequence[str], *, source: Path, root: Path, advice: str) -> None:
    """Raises CheckpointError, with `advice`, unless `classes` of `root` are those of the checkpoint, in its order."""
    if found is None:
        print(f"{source} does not name its classes (an older version wrote it): only their number is compared")
    elif found.classes != tuple(classes):
        known, given = {*found.classes}, {*classes}
        parts = (("knows ", known - given), (f"does not know, of {root}, ", given - known))
        differences = " and ".join(word + listed(sorted(names)) for word, names in parts if names)
        raise CheckpointError(f"{source} {differences or 'has these classes in another order'}: {advice}")


def inherited(config: TrainConfig, found: About | None, source: Path) -> dict[str, Any]:
    """The keys to evaluate or export a checkpoint with: those given by recipe and flags, then the checkpoint's own.

    Prints where a given key of the preprocessing differs. Raises CheckpointError for another network.
    """
    given = config.model_dump(mode="json", include=config.model_fields_set)
    recipe = found.recipe if found else {}
    if given.get("arch", recipe.get("arch")) != recipe.get("arch", given.get("arch")):
        raise CheckpointError(f"{source} is a {recipe['arch']}, not a {given['arch']}")
    for key in _PREPROCESSING:
        if key in given and key in recipe and given[key] != recipe[key]:
            print(f"{key} is {given[key]}; {source} was trained with {recipe[key]}")
    known = TrainConfig.model_fields.keys() - _NOT_INHERITED
    return {key: value for key, value in recipe.items() if key in known} | given


def _describe(images: Images) -> str:
    """Their number, and a digest of their names and labels; not of their pixels, which would take minutes."""
    digest, root = hashlib.sha256(images.labels.tobytes()), str(images.root)
    for index in range(len(images)):
        digest.update(images.name(index).replace(root, "").encode())
    return f"{len(images)} images, digest {digest.hexdigest()[:12]}"


def framework() -> str:
    return f"mindspore {ms.__version__}"
