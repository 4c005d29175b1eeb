import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.storage.files import write_whole

ROOT = Path(__file__).parents[3]
# No file of this process may exceed 1000 bytes, even for root (Python ignores the signal and raises OSError).
FULL_DISK = """
import resource, sys
from pathlib import Path
from training.storage.files import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
write_whole(Path(sys.argv[1]), bytes(5000))
"""


def test_a_file_and_its_folder_are_created_or_replaced(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_whole(path, b"first")
    write_whole(path, b"2nd")
    assert path.read_bytes() == b"2nd"
    assert list(path.parent.iterdir()) == [path]


def test_a_draft_left_by_a_kill_is_overwritten(tmp_path):
    (tmp_path / ".a.txt.draft").write_bytes(b"a longer half of something")
    write_whole(tmp_path / "a.txt", b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == f"training.errors.TrainingError: {path} cannot be written: File too large"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"file/a\.txt cannot be written: (Not a directory|File exists)"):
        write_whole(tmp_path / "file" / "a.txt", b"")
