import unicodedata

import pyarrow
import pytest
from pyarrow import parquet

from training.errors import ConfigError, DataError
from training.own.photos.collection import MOST_CLASSES, Photo, collect


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"photo")
    return root


def table(root, text, name="photos.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_folders_splits_and_tables_are_taken_alike(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "b/2.jpg")
    assert collect(root).photos == (Photo(root / "a/1.jpg", "a"), Photo(root / "b/2.jpg", "b"))
    assert collect(table(tmp_path, "path,label\na/1.jpg,a\nb/2.jpg,b\n")).photos == collect(root).photos
    assert collect(table(tmp_path, "\ufeffPath;Label\r\na/1.jpg;a\r\nb/2.jpg;b\r\n")).photos == collect(root).photos


def test_splits_are_respected_under_any_of_their_names(tmp_path):
    root = fill(tmp_path, "Train/a/1.jpg", "Train/b/2.jpg", "valid/a/3.jpg", "testing/b/4.jpg")
    assert [(photo.label, photo.split) for photo in collect(root).photos] == [
        *(("a", "train"), ("b", "train")),
        *(("b", "test"), ("a", "val")),
    ]
    fill(root, "valid/c/5.jpg")
    with pytest.raises(DataError, match="classes without photos in train: c"):
        collect(root)


def test_a_class_may_be_called_test(tmp_path):
    assert collect(fill(tmp_path, "test/1.jpg", "trial/2.jpg")).classes == ("test", "trial")


def test_a_parquet_file_is_read(tmp_path):
    fill(tmp_path, "a.jpg", "b.jpg")
    columns = {"path": ["a.jpg", "b.jpg"], "label": [3, 7], "group": ["x", None], "split": ["train", "val"]}
    file = tmp_path / "photos.parquet"
    parquet.write_table(pyarrow.table(columns | {"label": [3, 3], "split": [None, None]}), file)
    with pytest.raises(DataError, match="only one class, 3"):
        collect(file)
    parquet.write_table(pyarrow.table(columns | {"split": ["train", "train"]}), file)
    assert collect(file).photos == (
        Photo(tmp_path / "a.jpg", "3", "train", "x"),
        Photo(tmp_path / "b.jpg", "7", "train", None),
    )


def test_a_table_that_names_files_that_do_not_exist_is_an_error_that_lists_them(tmp_path):
    fill(tmp_path, "1.jpg")
    file = table(tmp_path, "path,label\n1.jpg,a\n2.jpg,b\n3.jpg,b\n")
    with pytest.raises(DataError, match=r"2 of 3 files do not exist:\n  .*2\.jpg\n  .*3\.jpg"):
        collect(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\n1.jpg,a\n", "needs columns path and label"),
        ("", "needs columns path and label"),
        ("path,label\n1.jpg,\n", "line 2: path and label must not be empty"),
        ("path,label,split\n1.jpg,a,holdout\n", "line 2: split 'holdout' is not one of"),
    ],
)
def test_a_table_that_cannot_be_understood_is_an_error_that_names_the_line(tmp_path, text, message):
    fill(tmp_path, "1.jpg")
    with pytest.raises(DataError, match=message):
        collect(table(tmp_path, text))


def test_groups_come_from_a_column_or_a_pattern(tmp_path):
    fill(tmp_path, "a/anna_1.jpg", "a/anna_2.jpg", "b/ben_1.jpg", "b/other.jpg")
    grouped = collect(tmp_path, "^([a-z]+)_").photos
    assert [photo.group for photo in grouped] == ["anna", "anna", "ben", None]
    with pytest.raises(ConfigError, match="not a regular expression"):
        collect(tmp_path, "(")
    file = table(tmp_path, "path,label,group\na/anna_1.jpg,a,x\nb/ben_1.jpg,b,\n")
    assert [photo.group for photo in collect(file).photos] == ["x", None]


def test_files_that_are_passed_over_are_counted_and_a_tool_is_named(tmp_path):
    notes = collect(fill(tmp_path, "a/1.jpg", "b/2.jpg", "b/3.HEIC", "b/4.heic", "b/5.nef", "b/notes.txt")).notes
    assert any("skipped 2 .heic: convert them with heif-convert" in note for note in notes)
    assert any("skipped 1 .nef: convert them with darktable-cli" in note for note in notes)
    assert "skipped 1 .txt" in notes


def test_only_raw_files_names_the_tool_too(tmp_path):
    with pytest.raises(DataError, match=r"no photos.*skipped 2 \.heic: convert them with heif-convert"):
        collect(fill(tmp_path, "a/1.heic", "b/2.heic"))


def test_folders_of_folders_of_folders(tmp_path):
    found = collect(fill(tmp_path, "mine/flowers/a/x/y/1.jpg", "mine/flowers/b/2.jpg"))
    assert found.classes == ("a", "b")
    assert f"the classes are in {tmp_path / 'mine/flowers'}" in found.notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.jpg"], "only one class, a"),
        (["1.jpg", "2.jpg"], "photos but no folders"),
        ([], "no photos"),
        (["Rose/1.jpg", "rose/2.jpg"], "differ only in case or spaces: Rose and rose"),
        (["é/1.jpg", unicodedata.normalize("NFD", "é/1.jpg")], "differ only in how Unicode composes"),
        ([f"{number}/1.jpg" for number in range(MOST_CLASSES + 1)], "1001 classes, this command takes up to 1000"),
    ],
)
def test_without_classes_to_tell_apart_there_is_a_clear_error(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        collect(fill(tmp_path, *names))


def test_a_source_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        collect(tmp_path / "nowhere")


def test_a_class_without_photos_is_left_out_and_said(tmp_path):
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "c").mkdir()
    found = collect(tmp_path)
    assert found.classes == ("a", "b")
    assert "without photos, and left out: c" in found.notes


def test_classes_that_hold_the_same_folders_are_said(tmp_path):
    root = fill(tmp_path, *(f"{season}/{kind}/1.jpg" for season in ("spring", "summer") for kind in ("rose", "tulip")))
    found = collect(root)
    assert found.classes == ("spring", "summer")
    (note,) = found.notes
    assert (
        note
        == "spring, summer are taken for classes, and hold the same folders (rose, tulip): if those are, give a CSV"
    )


def test_several_labels_a_photo_name_the_command_that_learns_them(tmp_path):
    root = fill(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    with pytest.raises(DataError, match=r"1 photos have several labels, such as cat\|dog; .*`labels: multi`"):
        collect(table(root, "path,label\n1.jpg,cat|dog\n2.jpg,cat\n3.jpg,dog\n"))
