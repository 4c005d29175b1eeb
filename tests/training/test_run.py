"""A real run, from images to a bundle, each verb as its own process as a user starts it."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
GENEROUS_S = 240


def command(verb, data, runs, *more):
    keys = {
        "arch": "RepVGG-Smoke",
        "num_classes": 2,
        "data_url": data,
        "dataset": "drawn stripes",
        "image_size": 32,
        "crop": "padded",
        "crop_pct": 1.0,
        "epochs": 4,
        "batch_size": 16,
        "device_target": "CPU",
        "save_dir": runs,
    }
    flags = [text for key, value in keys.items() for text in (f"--{key}", str(value))]
    return [sys.executable, "-m", f"training.{verb}", *flags, *map(str, more)]


def run(verb, data, runs, *more):
    return subprocess.run(
        command(verb, data, runs, *more), cwd=ROOT, capture_output=True, text=True, timeout=GENEROUS_S, check=False
    )


def weights_of(path):
    from training.run.checkpoints import checkpoint

    return checkpoint.read(path)


@pytest.fixture(scope="module")
def data(draw_image_folder, tmp_path_factory):
    return draw_image_folder(tmp_path_factory.mktemp("stripes"), {"train": 40, "val": 11})


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """One uninterrupted run of four epochs."""
    runs = tmp_path_factory.mktemp("whole")
    done = run("train", data, runs)
    assert done.returncode == 0, done.stderr
    return done, runs / "RepVGG-Smoke-drawn-stripes"


def test_a_run_writes_its_log_and_checkpoints(finished):
    done, folder = finished
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "curves.png", "last.ckpt", "log.jsonl"]
    assert "oneDNN up to" in done.stdout
    assert max(line["val_top1"] for line in lines) > 0.9, "stripes are easy: the network must have learnt"


def wait_for(process, path, since):
    """Poll until another process has written `path` after `since`, ns."""
    deadline = time.monotonic() + GENEROUS_S
    while not (path.is_file() and path.stat().st_mtime_ns > since):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("cpu")
def test_a_run_that_is_stopped_and_then_killed_ends_as_if_it_had_not_been_interrupted(data, finished, tmp_path):
    """With a checkpoint after every step, so that the interruption almost certainly happens within an epoch."""
    last, often = tmp_path / "RepVGG-Smoke-drawn-stripes" / "last.ckpt", ("--checkpoint_minutes", 1e-6)
    with subprocess.Popen(command("train", data, tmp_path, *often), cwd=ROOT, stderr=subprocess.PIPE) as process:
        wait_for(process, last, 0)
        process.terminate()
        told = process.communicate(timeout=GENEROUS_S)[1].decode()
    assert process.returncode == 128 + signal.SIGTERM
    assert re.search(r"stopped by SIGTERM .* epoch \d; .*last\.ckpt is saved, run the same command to resume", told)
    since = last.stat().st_mtime_ns
    with subprocess.Popen(command("train", data, tmp_path, *often), cwd=ROOT, stdout=subprocess.PIPE) as process:
        wait_for(process, last, since)
        process.kill()
        assert b"resuming from" in process.stdout.read()
    resumed = run("train", data, tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from" in resumed.stdout
    whole, again = weights_of(finished[1] / "last.ckpt"), weights_of(last)
    assert set(whole) == set(again)
    for name in set(whole) - {"about"}:  # which names the folder of the run
        np.testing.assert_array_equal(again[name], whole[name], err_msg=name)
    log = (tmp_path / "RepVGG-Smoke-drawn-stripes" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3, 4]


def test_a_finished_run_started_again_has_nothing_left_to_do(data, finished):
    done = run("train", data, finished[1].parent)
    assert done.returncode == 0
    assert "after epoch 4, the last one" in done.stdout
    assert "epoch 5" not in done.stdout


def test_eval_counts_every_image_and_agrees_with_the_log(data, finished):
    done = run("eval", data, finished[1].parent, "--pretrained", finished[1] / "best.ckpt")
    best = max(json.loads(line)["val_top1"] for line in (finished[1] / "log.jsonl").read_text().splitlines())
    assert "images: 22" in done.stdout
    assert f"Top1 acc: {best:.4f}" in done.stdout


def test_export_writes_a_bundle_whose_artifacts_give_the_logits_of_the_train_form(cpu, data, finished, tmp_path):
    import mindspore as ms
    import onnx
    from onnx.reference import ReferenceEvaluator

    from models.golden import load
    from models.store import open_bundle
    from training.run.checkpoints import checkpoint

    best = finished[1] / "best.ckpt"
    flags = ["--pretrained", best, "--bundle", tmp_path / "stripes" / "3", "--licence", "research only"]
    done = run("export", data, tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path / "stripes" / "3")
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, bundle.labels) == ("stripes", "3", ("across", "down"))
    assert manifest.training.licence == "research only"
    assert {(a.format, a.precision, a.batch) for a in manifest.artifacts} == {
        ("onnx", "fp32", "dynamic"),
        ("mindir", "fp32", "dynamic"),
    }
    tensors, expected = load(bundle)
    train_form = checkpoint.load_network(best, "RepVGG-Smoke", 2, deploy=False)
    np.testing.assert_allclose(train_form(ms.Tensor(tensors)).asnumpy(), expected, atol=1e-4, rtol=0)
    model = ReferenceEvaluator(onnx.load(bundle.path(bundle.artifact(["onnx"], "fp32"))))
    for batch in (1, 2, len(tensors)):
        found, _ = model.run(None, {"image": tensors[:batch]})  # and the last feature map
        np.testing.assert_allclose(found, expected[:batch], atol=1e-4, rtol=0)

    again = run("export", data, tmp_path, "--pretrained", best, "--bundle", tmp_path / "stripes" / "3")
    assert again.returncode == 78
    assert "exists: a published bundle is never changed" in again.stderr


@pytest.mark.parametrize(
    ("verb", "more", "code", "words"),
    [
        ("train", ("--data_url", "nowhere"), 66, "nowhere/train is not a folder"),
        ("train", ("--epochs", "many"), 78, "epochs"),
        ("train", ("--base_lr", "1e30"), 1, "the loss is"),
        ("eval", (), 78, "--pretrained FILE.ckpt is missing"),
        ("eval", ("--pretrained", "gone.ckpt"), 66, "gone.ckpt does not exist"),
        ("export", ("--pretrained", "gone.ckpt", "--bundle", "b/x/1"), 66, "gone.ckpt does not exist"),
    ],
)
def test_a_user_error_is_one_line_and_an_exit_code(data, tmp_path, verb, more, code, words):
    done = run(verb, data, tmp_path, *more)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
