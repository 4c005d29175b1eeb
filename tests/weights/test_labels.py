import csv
from pathlib import Path

import pytest

from weights.errors import LabelsError
from weights.labels import IMAGENET_LABELS, read_labels

ROOT = Path(__file__).parents[2]


def test_the_shipped_labels_are_those_of_imagenet():
    labels = read_labels(IMAGENET_LABELS)
    assert len(labels) == 1000
    assert [labels[i] for i in (0, 1, 207, 281, 999)] == [
        "tench", "goldfish", "golden retriever", "tabby", "toilet tissue"
    ]  # fmt: skip


def test_the_shipped_labels_are_in_the_order_of_the_data_that_they_are_from():
    table = ROOT.parent / "shared/data/imagenet_classes.csv"
    if not table.is_file():
        pytest.skip("the table ../shared/data/imagenet_classes.csv is absent")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == read_labels(IMAGENET_LABELS)
    assert [int(row["class_id"]) for row in rows] == list(range(1000))
    assert rows == sorted(rows, key=lambda row: row["wnid"])


def test_labels_may_have_a_byte_order_mark_and_the_line_ends_of_windows(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf# pets\r\ncat\r\ndog\r\n")
    assert read_labels(tmp_path / "labels.txt") == ["cat", "dog"]


@pytest.mark.parametrize("content", [b"", b"# nothing else\n", b"cat\n\ndog\n", b"\xff\xfe"])
def test_an_invalid_labels_file_is_named(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(LabelsError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")
