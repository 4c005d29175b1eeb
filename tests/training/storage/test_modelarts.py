"""With a fake moxing that keeps obs:// in a local folder; the real one exists only on ModelArts."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import DeviceError, TrainingError
from training.storage import modelarts

ROOT = Path(__file__).parents[3]
FAKE = Path(__file__).parents[1] / "fake_modelarts"


@pytest.fixture
def obs(tmp_path, monkeypatch):
    """The folder behind obs://, with bucket/set/a.txt in it."""
    folder = tmp_path / "obs"
    (folder / "bucket" / "set").mkdir(parents=True)
    (folder / "bucket" / "set" / "a.txt").write_text("a")
    monkeypatch.setenv("OBS", str(folder))
    monkeypatch.syspath_prepend(FAKE)
    yield folder
    sys.modules.pop("moxing", None)


def copies(obs):
    return [line.split()[0] for line in (obs / "copies.txt").read_text().splitlines()]


def test_a_local_folder_is_used_where_it_is(tmp_path):
    assert modelarts.local_folder("./data", tmp_path) == Path("data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["obs://bucket/set", "s3://bucket/set/"])
def test_an_address_is_copied_to_the_cache(obs, tmp_path, url):
    folder = modelarts.local_folder(url, tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    assert (folder / "a.txt").read_text() == "a"


def test_another_address_is_another_folder(obs, tmp_path):
    (obs / "bucket" / "set" / "b").mkdir()
    inner, outer = (modelarts.local_folder(f"obs://bucket/{key}", tmp_path) for key in ("set/b", "set"))
    assert inner != outer
    assert (outer / "a.txt").is_file()


def test_each_machine_copies_a_folder_once(obs, tmp_path):
    program = f"from training.storage.modelarts import local_folder as f; from pathlib import Path; import os;\
        print(os.listdir(f('obs://bucket/set', Path({str(tmp_path / 'cache')!r}))))"
    environment = {"OBS": str(obs), "PYTHONPATH": f"{FAKE}:{ROOT}"}
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [lines[-1] for lines in outputs] == ["['a.txt']"] * 3
    assert copies(obs) == ["obs://bucket/set"]


def test_a_half_copied_folder_is_never_used(obs, tmp_path):
    folder = modelarts.local_folder("obs://bucket/set", tmp_path)
    half = folder.with_name(f".{folder.name}.half")
    folder.rename(half)
    (half / "torn.txt").write_text("left by a process that was killed")
    assert modelarts.local_folder("obs://bucket/set", tmp_path) == folder
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_an_address_that_does_not_exist_is_named(obs, tmp_path):
    with pytest.raises(TrainingError, match="obs://bucket/gone cannot be copied to"):
        modelarts.local_folder("obs://bucket/gone", tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith("gone")]


def test_a_copy_that_copied_nothing_is_an_error(obs, tmp_path):
    import moxing

    moxing.file.copy_parallel = lambda source, target: None  # as an object store does for a key that does not exist
    with pytest.raises(TrainingError, match=r"obs://bucket/gone cannot be copied to .*: there is no such folder"):
        modelarts.local_folder("obs://bucket/gone", tmp_path)


def test_without_moxing_an_address_says_what_to_do(tmp_path):
    with pytest.raises(
        DeviceError, match=r"only ModelArts has .*copy the data to this machine and give a local folder"
    ):
        modelarts.local_folder("obs://bucket/set", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(obs, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(TrainingError, match=r"obs://bucket/set cannot be copied to .*cache/bucket%2Fset: "):
        modelarts.local_folder("obs://bucket/set", tmp_path / "cache")


def test_a_failure_of_moxing_is_explained(obs, tmp_path, monkeypatch):
    monkeypatch.delenv("OBS")
    with pytest.raises(TrainingError, match="obs://bucket/kept/RepVGG-A0 cannot be looked up: 'OBS'"):
        modelarts.fetch_run("obs://bucket/kept", tmp_path / "RepVGG-A0")


@pytest.mark.parametrize("remote", [True, False])
def test_a_run_is_kept_and_found_by_the_next_job(obs, tmp_path, remote):
    url = "obs://bucket/kept/" if remote else str(tmp_path / "kept")
    run_dir, next_dir = tmp_path / "first" / "RepVGG-A0", tmp_path / "second" / "RepVGG-A0"
    modelarts.fetch_run(url, next_dir)
    assert not next_dir.exists(), "there was no run yet"
    run_dir.mkdir(parents=True)
    for content in ("epoch 1", "epoch 2"):
        (run_dir / "last.ckpt").write_text(content)
        modelarts.keep_run(run_dir, url)
    modelarts.fetch_run(url, next_dir)
    assert (next_dir / "last.ckpt").read_text() == "epoch 2"
    (next_dir / "last.ckpt").write_text("epoch 3")
    modelarts.fetch_run(url, next_dir)
    assert (next_dir / "last.ckpt").read_text() == "epoch 3", "a run that is there is left alone"
