import pytest

from training.deploy.offline import files
from training.errors import TrainingError


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    def interrupted():
        with files.new_folder(tmp_path / "out") as draft:
            (draft / "half").write_text("written")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(tmp_path / "out") as draft:
        (draft / "whole").write_text("written")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]


def test_a_folder_is_never_written_into_an_old_one(tmp_path):
    with pytest.raises(TrainingError, match="exists: remove it"), files.new_folder(tmp_path):
        pytest.fail("the block must not run")


def test_a_write_error_names_the_path(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(TrainingError, match=r"file/out cannot be written"),
        files.new_folder(tmp_path / "file" / "out"),
    ):
        pytest.fail("the block must not run")


def test_labels_are_read_back_as_they_were_written(tmp_path):
    files.write_labels(tmp_path / "label" / "label.json", 3, {"b": 2, "a": 0})
    assert files.read_labels(tmp_path / "label" / "label.json") == (3, {"b": 2, "a": 0})
