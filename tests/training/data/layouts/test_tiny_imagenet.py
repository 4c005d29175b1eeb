"""Tiny ImageNet as Stanford publishes it, drawn small."""

import json

import numpy as np
import pytest

from training.config import build
from training.data.datasets import open_split, open_splits
from training.data.layouts.published import imagenet_names, tiny_imagenet
from training.data.names import check_labels
from training.errors import DataError
from weights.labels import IMAGENET_LABELS, read_labels

CAT, GOLDFISH = "n02124075", "n01443537"
PER_CLASS, VAL = 6, {"val_0.JPEG": CAT, "val_1.JPEG": GOLDFISH, "val_2.JPEG": CAT}


@pytest.fixture
def published(tmp_path, draw_jpeg):
    """tiny-imagenet-200/ with two classes, whose ids wnids.txt lists unsorted; train has boxes beside the images."""
    folder, seeds = tmp_path / "tiny-imagenet-200", iter(range(100))
    for wnid in (CAT, GOLDFISH):
        files = folder / "train" / wnid / "images"
        files.mkdir(parents=True)
        files.with_name(f"{wnid}_boxes.txt").write_text("")
        for number in range(PER_CLASS):
            (files / f"{wnid}_{number}.JPEG").write_bytes(draw_jpeg(wnid == CAT, next(seeds), 64))
    (folder / "val" / "images").mkdir(parents=True)
    for name, wnid in VAL.items():
        (folder / "val" / "images" / name).write_bytes(draw_jpeg(wnid == CAT, next(seeds), 64))
    lines = [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in VAL.items()]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text(f"{CAT}\n{GOLDFISH}\n")
    return folder


def config(folder, **keys):
    return build({"data_url": str(folder), "set": "TinyImageNet", "num_classes": 2} | keys, source="test")


def test_both_splits_are_read_as_published(published):
    train, val = tiny_imagenet(published, "train"), tiny_imagenet(published.parent, "val")
    assert train.classes == val.classes == ("goldfish", "Egyptian cat"), "by the sorted ids"
    assert train.labels.tolist() == [0] * PER_CLASS + [1] * PER_CLASS
    assert train.images[0][0] == published / "train" / GOLDFISH / "images" / f"{GOLDFISH}_0.JPEG"
    assert [(path.name, val.classes[class_id]) for path, class_id in val.images] == [
        ("val_0.JPEG", "Egyptian cat"),
        ("val_1.JPEG", "goldfish"),
        ("val_2.JPEG", "Egyptian cat"),
    ]
    assert val.kept_picture(1, "srgb").size == (64, 64)


def test_the_names_are_imagenets():
    names = imagenet_names()
    assert list(names) == sorted(names)
    assert list(names.values()) == read_labels(IMAGENET_LABELS)
    assert (names["n01440764"], names["n02124075"], names["n15075141"]) == ("tench", "Egyptian cat", "toilet tissue")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("cat", "two\nlines"), r"wnids\.txt: class names that cannot be labels: two\\nlines"),
        (("crane", "crane"), r"wnids\.txt: classes that share a name: crane"),
    ],
)
def test_names_are_checked_like_those_of_folders(tmp_path, names, words):
    with pytest.raises(DataError, match=words):
        check_labels(names, tmp_path / "wnids.txt")


@pytest.mark.parametrize(
    ("split", "file", "content", "words"),
    [
        ("train", "wnids.txt", None, r"wnids\.txt cannot be read: No such file"),
        ("train", "wnids.txt", "\n", r"wnids\.txt contains no class"),
        ("train", "wnids.txt", f"{CAT}\nn1\n{GOLDFISH}", r"wnids\.txt lists ids that are not in ImageNet-1k: n1$"),
        ("train", "wnids.txt", f"{CAT}\n{CAT}", r"wnids\.txt: classes that share a name: Egyptian cat"),
        ("train", "wnids.txt", f"{CAT}\n", rf"train has folders that wnids\.txt does not list: {GOLDFISH}"),
        ("train", "wnids.txt", f"{CAT}\n{GOLDFISH}\nn01440764", r"n01440764.images has no image"),
        ("val", "val/val_annotations.txt", None, r"val_annotations\.txt cannot be read: No such file"),
        ("val", "val/val_annotations.txt", "", r"val_annotations\.txt contains no image"),
        ("val", "val/val_annotations.txt", "val_0.JPEG", r"txt, line 1 names no class of wnids\.txt: val_0"),
        ("val", "val/val_annotations.txt", f"a.JPEG\t{CAT}\na.JPEG\t{CAT}", "line 2 repeats an image: a"),
        ("val", "val/val_annotations.txt", f"val_0.JPEG\t{CAT}", r"has no line for val_1\.JPEG, val_2\.JPEG$"),
        ("val", "val/images/val_1.JPEG", None, r"val/images lacks val_1\.JPEG"),
    ],
)
def test_a_missing_or_odd_file_is_named(published, split, file, content, words):
    (published / file).unlink()
    if content is not None:
        (published / file).write_text(content)
    with pytest.raises(DataError, match=words):
        tiny_imagenet(published, split)


def test_a_folder_without_the_data_set_is_named(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/wnids\.txt cannot be read"):
        open_splits(config(tmp_path))


def test_a_broken_image_of_either_split_is_named_before_the_run(published):
    from training.data.pipeline import evaluation_spec, verify

    (published / "val" / "images" / "val_2.JPEG").write_bytes(b"no image")
    settings = config(published)
    with pytest.raises(DataError, match=r"1 broken image; .*\s.*val_2\.JPEG"):
        verify(open_splits(settings), evaluation_spec(settings), "pixels", 1)


@pytest.mark.usefixtures("cpu")
def test_a_run_chooses_its_best_checkpoint_without_val(published, tmp_path):
    """Four of the twelve training images choose the best checkpoint; `training.eval` and the bundle use val."""
    from training.run.loop import train

    keys = {"arch": "RepVGG-Smoke", "image_size": 16, "batch_size": 4, "epochs": 1, "holdout": 4}
    settings = config(published, **keys, save_dir=str(tmp_path / "runs"), device_target="CPU")
    best = train(settings)
    (line,) = [json.loads(line) for line in best.with_name("log.jsonl").read_text().splitlines()]
    assert line["val_top1"] * 4 == pytest.approx(round(line["val_top1"] * 4), abs=1e-9), "of four images"
    assert len(open_split(settings, "val")) == len(VAL)
    assert np.bincount(open_splits(settings)[1].labels).tolist() == [2, 2]
