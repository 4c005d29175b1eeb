from __future__ import annotations

from pathlib import Path

import pytest

from models.atomic import drafted


def test_the_folder_appears_complete_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    with drafted(target) as draft:
        (draft / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), drafted(tmp_path / "folder") as draft:
        draft.write_text("a folder is no file")
    assert list(tmp_path.iterdir()) == []
