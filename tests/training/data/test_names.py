import os
import unicodedata

import pytest

from training.config import build
from training.data.datasets import open_split, open_splits
from training.data.names import class_folders, listed, printable
from training.errors import DataError

NFC, NFD = "café", unicodedata.normalize("NFD", "café")


def make(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").touch()


def config(root, num_classes=2):
    return build({"data_url": str(root), "set": "ImageFolder", "num_classes": num_classes}, source="test")


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        (b"two\nlines", r"two\nlines"),
        (b"bell\x07", r"bell\x07"),
        (b"latin1 \xe9", r"latin1 \udce9"),
        ("next\x85line".encode(), r"next\x85line"),
        ("para\u2029graph".encode(), r"para\u2029graph"),
    ],
)
def test_a_name_that_cannot_be_a_label_is_rejected_and_printed(tmp_path, name, printed):
    make(tmp_path, "train/a", "val/a")
    os.mkdir(os.path.join(os.fsencode(tmp_path / "train"), name))  # noqa: PTH102, PTH118  # pathlib takes no bytes
    with pytest.raises(DataError, match="the folder's name cannot be a label") as caught:
        open_splits(config(tmp_path))
    assert f"train/{printed}: " in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["hot dog", "T恤", "naïve, or not", "👩‍🔬", "عربى"])
def test_names_of_all_scripts_are_labels(tmp_path, name):
    make(tmp_path, f"train/{name}", "train/b", f"val/{name}", "val/b")
    train, val = open_splits(config(tmp_path))
    assert set(train.classes) == set(val.classes) == {unicodedata.normalize("NFC", name), "b"}


def test_names_are_compared_and_kept_in_one_normal_form(tmp_path):
    """macOS makes folders of decomposed names, Linux mostly of composed ones; `cafz` lies between the two."""
    make(tmp_path, f"train/{NFD}", "train/cafz", f"val/{NFC}", "val/cafz")
    train, val = open_splits(config(tmp_path))
    assert train.classes == val.classes == ("cafz", NFC)
    assert [train.classes[class_id] for _, class_id in train.images] == ["cafz", NFC]
    assert [path.parent.name for path, _ in train.images] == ["cafz", NFD]


def test_two_folders_of_one_name_are_rejected(tmp_path):
    make(tmp_path, NFC, NFD)
    with pytest.raises(DataError, match=f"two folders named {NFC}, which differ only in how Unicode composes"):
        class_folders(tmp_path)


def test_classes_that_only_one_split_has_are_named(tmp_path):
    make(tmp_path, "train/cat", "train/dog", "val/cat")
    with pytest.raises(DataError, match=r"val must have the classes of train: it lacks dog$"):
        open_splits(config(tmp_path))
    make(tmp_path, "val/Dog")
    with pytest.raises(DataError, match=r"of train: it lacks dog; it alone has Dog$"):
        open_splits(config(tmp_path))
    make(tmp_path, "val/dog")
    with pytest.raises(DataError, match=r"of train: it alone has Dog$"):
        open_splits(config(tmp_path))


def test_a_wrong_num_classes_is_mended_by_following_the_advice(tmp_path):
    make(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    with pytest.raises(DataError, match="train has 2 classes, but num_classes is 3: give num_classes 2"):
        open_splits(config(tmp_path, 3))
    assert [images.classes for images in open_splits(config(tmp_path, 2))] == [("cat", "dog")] * 2


def test_val_alone_is_no_reason_to_advise_another_num_classes(tmp_path):
    make(tmp_path, "val/cat", "val/dog")
    with pytest.raises(DataError, match=r"val has 2 classes, but num_classes is 3$"):
        open_split(config(tmp_path, 3), "val")


def test_photos_without_class_folders_are_told_where_they_belong(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.jpg").touch()
    with pytest.raises(DataError, match=r"train has no class folders: the images of each class belong in .*train/<"):
        open_split(config(tmp_path), "train")


def test_a_long_list_is_cut():
    assert listed(map(str, range(25))) == ", ".join(map(str, range(20))) + ", and 5 more"
    assert listed(["a", "b\n"], "; ") == "a; b\\n"
    assert printable("é 👍") == "é 👍"
