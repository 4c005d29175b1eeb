import numpy as np
import pytest

from training.config import build
from training.data.datasets import open_splits
from training.data.layouts.tables import open_table
from training.errors import ConfigError, DataError

ROWS = "path,label,split\na.jpg,cat|dog,train\nb.jpg,dog,train\nc.jpg,,train\nd.jpg,cat,val\n"


@pytest.fixture
def write_table(draw_jpeg, tmp_path):
    """(text of the table) -> its path; a.jpg to d.jpg are there."""

    def write(text):
        for seed, name in enumerate("abcd"):
            (tmp_path / f"{name}.jpg").write_bytes(draw_jpeg(seed % 2, seed))
        (tmp_path / "photos.csv").write_text(text)
        return tmp_path / "photos.csv"

    return write


def test_several_labels_or_none_may_apply(write_table):
    config = build({"set": "CSV", "labels": "multi", "data_url": write_table(ROWS)}, source="test")
    train, val = open_splits(config)
    assert train.classes == val.classes == ("cat", "dog")
    np.testing.assert_array_equal(train.labels, np.float32([[1, 1], [0, 1], [0, 0]]))
    np.testing.assert_array_equal(val.labels, np.float32([[1, 0]]))
    np.testing.assert_array_equal(train.subset([2, 0]).labels, np.float32([[0, 0], [1, 1]]))


def test_a_table_of_one_label_each_is_a_layout_too(write_table):
    table = write_table("path;label;split\na.jpg;cat;train\nb.jpg;dog;training\nd.jpg;cat;val\n")
    train, val = open_splits(build({"set": "CSV", "data_url": table}, source="test"))
    assert (train.labels.tolist(), val.labels.tolist(), val.classes) == ([0, 1], [0], ("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "multi", "words"),
    [
        ("path,label\na.jpg,cat\n", True, "needs columns path, label and split"),
        ("path,label,split\na.jpg,,train\n", False, "line 2: label is empty"),
        ("path,label,split\na.jpg,cat,later\n", True, "line 2: split 'later' is not one of train"),
        ("path,label,split\nx.jpg,cat,train\n", True, "1 of 1 files do not exist: x.jpg"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,gnu,val\n", True, "labels without a training image: gnu"),
        ("path,label,split\na.jpg,cat,val\nb.jpg,cat,val\n", True, "labels without a training image: cat"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(write_table, text, multi, words):
    with pytest.raises(DataError, match=words):
        open_table(write_table(text), "train", multi=multi)


def test_keys_that_need_one_class_an_image_are_refused_by_name(write_table):
    with pytest.raises(ConfigError, match="labels: multi needs set: CSV"):
        build({"labels": "multi"}, source="test")
    with pytest.raises(ConfigError, match="does not go with holdout"):
        build({"labels": "multi", "set": "CSV", "holdout": 5}, source="test")
