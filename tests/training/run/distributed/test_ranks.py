"""Two processes under msrun: the step against one process with the doubled batch, and a whole run as a user starts it.

A run of msrun starts three processes that compile, so each does as much as it can.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from training.run.record.journal import read

ROOT = Path(__file__).parents[4]
PROGRAM = Path(__file__).with_name("two_ranks.py")
FAKE_MOXING = Path(__file__).parents[2] / "fake_modelarts"
GENEROUS_S = 500
pytestmark = pytest.mark.timeout(600)

RNG = np.random.default_rng(5)
STEPS, BATCH = 6, 4
CASES = {
    "plain": ("dense", {"optimizer": "sgd"}),
    "everything": (
        "dense",
        {
            "optimizer": "momentum",
            "accumulate_steps": 2,
            "clip_global_norm_value": 0.3,
            "with_ema": True,
            "ema_decay": 0.5,
        },
    ),
    "overflow": ("dense", {"optimizer": "sgd", "amp_level": "O1", "loss_scale": 2.0**20}),
    "batch_norm": ("conv", {"optimizer": "momentum"}),
    "not_finite": ("dense", {"optimizer": "sgd"}),
}


def drawn_batches():
    """Inputs (steps, ranks, batch, ...) and labels (steps, ranks, batch) of each case."""
    found = {}
    for name, (kind, _) in CASES.items():
        shape = (5,) if kind == "dense" else (3, 6, 6)
        found[f"{name}/inputs"] = RNG.normal(0, 2, (STEPS, 2, BATCH, *shape)).astype(np.float32)
        found[f"{name}/labels"] = RNG.integers(0, 3, (STEPS, 2, BATCH)).astype(np.int32)
    found["overflow/inputs"][0, 0] = 0  # rank 0 alone would have made the first update
    found["not_finite/inputs"][-1, 1] = np.nan  # and would have seen no reason to stop here
    # The same images, with labels of its own, on both ranks: then the statistics of a half are those of the whole.
    found["batch_norm/inputs"][:, 1] = found["batch_norm/inputs"][:, 0]
    return found


@contextmanager
def msrun(logs, *command, environment):
    """Runs two workers and waits for their end; their output is in logs/worker_<rank>.log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = Path(sys.executable).parent
    path = {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}  # msrun starts what is called `python` there
    start = [scripts / "msrun", "--worker_num=2", "--local_worker_num=2", f"--master_port={port}", f"--log_dir={logs}"]
    with subprocess.Popen(
        [*start, "--join=True", "--tail_worker_log=-1", "--cluster_time_out=120", *map(str, command)],
        cwd=ROOT,
        env=os.environ | path | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
            process.wait(GENEROUS_S)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # it then kills the processes that it started


def log_of(logs, rank):
    """The output of the process, without MindSpore's own messages."""
    lines = (logs / f"worker_{rank}.log").read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith("["))


@pytest.fixture(scope="module")
def two_ranks():
    spec = importlib.util.spec_from_file_location("two_ranks", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def batches():
    return drawn_batches()


@pytest.fixture(scope="module")
def found(batches, tmp_path_factory):
    """The results of the two ranks, rank 0 first."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "cases.json").write_text(json.dumps(CASES))
    np.savez(folder / "batches.npz", **batches)
    with msrun(folder / "logs", PROGRAM, folder, environment={"PYTHONPATH": str(ROOT)}) as process:
        pass
    assert process.returncode == 0, log_of(folder / "logs", 0) + log_of(folder / "logs", 1)
    return [dict(np.load(folder / f"{rank}.npz")) for rank in (0, 1)]


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_make_the_updates_of_one_device_with_the_doubled_batch(name, found, batches, two_ranks):
    from training.run.distributed.device import SINGLE_PROCESS

    kind, keys = CASES[name]
    inputs, labels = batches[f"{name}/inputs"], batches[f"{name}/labels"]
    doubled = zip(inputs.reshape(STEPS, 2 * BATCH, *inputs.shape[3:]), labels.reshape(STEPS, 2 * BATCH), strict=True)
    expected = two_ranks.results(name, kind, keys, doubled, SINGLE_PROCESS)
    assert not np.array_equal(expected[f"{name}/weights"][0], expected[f"{name}/weights"][-1])
    assert set(expected) == {what for what in found[0] if what.startswith(f"{name}/")}
    for what, array in expected.items():
        tolerance = 1e-2 if "amp_level" in keys else 1e-5
        if what.endswith("moving_variance"):  # that of half as many pixels n is larger by n / (n - 1)
            tolerance = 1 / (BATCH * 6 * 6)
        np.testing.assert_array_equal(found[0][what], found[1][what], err_msg=f"{what}: the ranks differ")
        np.testing.assert_allclose(found[0][what], array, rtol=tolerance, atol=tolerance, err_msg=what)


def test_an_overflow_of_one_rank_skips_the_update_of_all(found, two_ranks):
    for rank in (0, 1):
        np.testing.assert_array_equal(found[rank]["overflow/weights"][0], two_ranks.WEIGHT)
        assert found[rank]["overflow/overflows"] >= 1
        assert found[rank]["overflow/overflows"] + found[rank]["overflow/updates"] == STEPS


def test_a_loss_that_is_not_finite_on_one_rank_is_not_finite_on_any(found):
    for rank in (0, 1):
        assert np.isfinite(found[rank]["not_finite/loss"]).tolist() == [True] * (STEPS - 1) + [False]


def test_ranks_save_together_and_all_stop_when_one_is_asked_to(found):
    for rank in (0, 1):
        nothing, due = found[rank]["agreed"].tolist()
        assert (nothing, due) == ([False, False], [False, True]), "only rank 0's time had come"
        assert found[rank]["agreed/stop"].tolist() == [True, True]
        assert found[rank]["agreed/signal"] == [signal.SIGTERM, signal.SIGINT][rank]


def test_broadcast_gives_the_parameters_of_rank_0_and_average_gives_their_mean(found):
    for rank in (0, 1):
        mine = found[rank]
        assert mine["total"].tolist() == [3, 20]
        assert mine["first"] == 5
        assert mine["shared/counted"] == 7
        assert mine["shared/weight"].tolist() == [1, 2]
        assert mine["averaged/counted"] == 7
        assert mine["averaged/weight"].tolist() == [1.5, 2]
        assert mine["used/weight"].tolist() == [2.5, 3], "a graph that had run already must see the mean"


KEYS = {
    "arch": "RepVGG-Smoke",
    "num_classes": 2,
    "data_url": "obs://bucket/stripes",
    "train_url": "obs://bucket/runs",
    "image_size": 16,
    "crop": "padded",
    "crop_pct": 1.0,
    "batch_size": 8,
    "device_target": "CPU",
}


def train(folder, name, **more):
    """A run of two processes as ModelArts would start it; its logs are in <folder>/<name>-logs."""
    keys = KEYS | {"cache_dir": folder / "cache", "save_dir": folder / name} | more
    flags = [f"--{key}={value}" for key, value in keys.items()]
    environment = {"OBS": str(folder / "obs"), "PYTHONPATH": str(FAKE_MOXING)}
    return msrun(folder / f"{name}-logs", "python", "-m", "training.train", *flags, environment=environment)


def epochs_in(run_dir):
    return [line["epoch"] for line in read(run_dir / "log.jsonl")]


def worker_of(msrun_pid, rank):
    """The process id of a rank among the children of msrun."""
    for pid in Path(f"/proc/{msrun_pid}/task/{msrun_pid}/children").read_text().split():
        if f"MS_NODE_ID={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"msrun has no rank {rank}")


@pytest.fixture(scope="module")
def trained(draw_image_folder, tmp_path_factory):
    """Two epochs, with val images that two ranks cannot share evenly."""
    folder = tmp_path_factory.mktemp("run")
    draw_image_folder(folder / "obs" / "bucket" / "stripes", {"train": 40, "val": 9})
    (folder / "obs" / "bucket" / "stripes" / "val" / "across" / "000.jpg").unlink()
    with train(folder, "runs", epochs=2) as process:
        pass
    logs = folder / "runs-logs"
    assert process.returncode == 0, log_of(logs, 0) + log_of(logs, 1)
    return folder, logs, folder / "runs" / "RepVGG-Smoke-ImageNet"


@pytest.mark.usefixtures("cpu")
def test_a_run_of_two_ranks_counts_every_image_and_only_rank_0_writes(trained):
    from training.config import build
    from training.data.pipeline import open_split
    from training.run.checkpoints import checkpoint
    from training.run.evaluation import evaluate_images

    folder, logs, run_dir = trained
    assert epochs_in(run_dir) == [1, 2]
    assert sorted(path.name for path in run_dir.iterdir()) == ["best.ckpt", "curves.png", "last.ckpt", "log.jsonl"]
    assert "2 processes" in log_of(logs, 0)
    assert "epoch 2: loss" in log_of(logs, 0)
    assert [line for line in log_of(logs, 1).splitlines() if line and not line.startswith("copying")] == []
    config = build(KEYS | {"data_url": str(folder / "obs" / "bucket" / "stripes")}, source="test")
    network = checkpoint.load_network(run_dir / "last.ckpt", "RepVGG-Smoke", 2, deploy=False)
    count, top1, _ = evaluate_images(network, open_split(config, "val"), config)
    assert (count, top1) == (17, pytest.approx(read(run_dir / "log.jsonl")[-1]["val_top1"]))


def test_images_at_obs_are_downloaded_once_and_every_save_is_uploaded(trained):
    folder, _, run_dir = trained
    copies = [line.split()[0] for line in (folder / "obs" / "copies.txt").read_text().splitlines()]
    assert copies[0] == "obs://bucket/stripes"
    assert copies.count("obs://bucket/stripes") == 1
    assert copies.count(str(run_dir)) == 2 * 2 + 1  # before each evaluation, after each epoch, and at the end
    kept = folder / "obs" / "bucket" / "runs" / "RepVGG-Smoke-ImageNet"
    for path in run_dir.iterdir():
        assert (kept / path.name).read_bytes() == path.read_bytes()


def test_a_new_job_resumes_from_the_uploaded_run_and_all_ranks_stop_when_one_is_asked_to(trained):
    folder, _, _ = trained
    logs, run_dir, deadline = (
        folder / "again-logs",
        folder / "again" / "RepVGG-Smoke-ImageNet",
        time.monotonic() + GENEROUS_S,
    )
    with train(folder, "again", epochs=1000, resume_changed=True) as process:
        while not (run_dir / "log.jsonl").is_file() or epochs_in(run_dir)[-1] < 3:
            assert process.poll() is None, log_of(logs, 0) + log_of(logs, 1)
            assert time.monotonic() < deadline
            time.sleep(0.05)  # polls for an epoch of other processes
        os.kill(worker_of(process.pid, 1), signal.SIGTERM)
    assert process.returncode != 0
    assert "last.ckpt after epoch 2" in log_of(logs, 0)
    assert "resuming from" not in log_of(logs, 1)
    for rank in (0, 1):
        assert "stopped by SIGTERM after step" in log_of(logs, rank)
        assert "Traceback" not in log_of(logs, rank)
    kept = folder / "obs" / "bucket" / "runs" / "RepVGG-Smoke-ImageNet" / "last.ckpt"
    assert (run_dir / "last.ckpt").read_bytes() == kept.read_bytes()
