"""The shell scripts, run completely on CPU; for ranks on Ascend only the commands are checked."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training import export

SCRIPTS = Path(__file__).parents[2] / "training" / "scripts"
GENEROUS_S = 240
RECIPE = """
arch: RepVGG-Smoke
num_classes: 2
data_url: {data}
image_size: 32
crop: padded
crop_pct: 1.0
mean: [0.5, 0.45, 0.4]
epochs: 1
batch_size: 16
save_dir: {runs}
"""


def command(script, *arguments):
    # A test runner in the background ignores SIGINT, and what it starts would too.
    return ["env", "--default-signal=INT", "bash", str(SCRIPTS / f"{script}.sh"), *map(str, arguments)]


def environment(**more):
    return os.environ | {"PYTHON": sys.executable, "DEVICE_TARGET": "CPU"} | more


def run(folder, script, *arguments, **environ):
    return subprocess.run(
        command(script, *arguments),
        cwd=folder,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=GENEROUS_S,
        check=False,
    )


def accuracy(printed):
    return re.findall(r"^(?:images|Top[15] acc): .*$", printed, re.MULTILINE)


@pytest.fixture(scope="module")
def trained(draw_image_folder, tmp_path_factory):
    """-> (what the script printed, its folder with data/, recipe.yaml, logs/ and runs/)."""
    folder = tmp_path_factory.mktemp("scripts")
    draw_image_folder(folder / "data", {"train": 24, "val": 11})
    (folder / "recipe.yaml").write_text(RECIPE.format(data=folder / "data", runs=folder / "runs"))
    done = run(folder, "run_standalone_train_ascend", 0, "recipe.yaml", "--base_lr", "0.05")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder


@pytest.fixture(scope="module")
def evaluated(trained):
    """The three lines of training.eval."""
    _, folder = trained
    done = run(folder, "run_eval_ascend", 0, "recipe.yaml", "runs/recipe/best.ckpt")
    assert done.returncode == 0, done.stderr
    assert len(accuracy(done.stdout)) == 3
    return accuracy(done.stdout)


@pytest.fixture(scope="module")
def exported(cpu, trained):
    """The folder of RepVGG-Smoke.mindir and RepVGG-Smoke.onnx."""
    _, folder = trained
    keys = ["--config", str(folder / "recipe.yaml"), "--pretrained", str(folder / "runs/recipe/best.ckpt")]
    more = ["--device_target", "CPU", "--file_format", "MINDIR", "ONNX", "--output_dir", str(folder)]
    assert export.main([*keys, *more]) == 0
    return folder


def test_training_prints_what_its_log_keeps(trained):
    printed, folder = trained
    assert "epoch 1: loss" in printed
    assert "best checkpoint:" in printed
    assert (folder / "logs" / "rank_0.log").read_text() == printed


def test_offline_inference_with_mindir_gives_the_accuracy_of_evaluation(exported, evaluated):
    arguments = (exported / "RepVGG-Smoke.mindir", "imagenet2012", exported / "data" / "val", 0)
    done = run(exported, "run_infer_310", *arguments, CONFIG_PATH="recipe.yaml", RESULT_PATH="out/310")
    assert done.returncode == 0, done.stderr
    assert accuracy(done.stdout) == evaluated
    assert len(list((exported / "out/310/result_Files").iterdir())) == 22
    again = run(exported, "run_infer_310", *arguments, CONFIG_PATH="recipe.yaml", RESULT_PATH="out/310")
    assert again.returncode == 2
    assert "out/310/preprocess_Result exists: remove it or set RESULT_PATH" in again.stderr


def test_offline_inference_with_onnx_gives_the_accuracy_of_evaluation(exported, evaluated):
    done = run(
        exported, "run_infer_onnx", "RepVGG-Smoke.onnx", "data", "CPU", 0, "--batch_size", 5, CONFIG_PATH="recipe.yaml"
    )
    assert done.returncode == 0, done.stderr
    assert "ONNX Runtime" in done.stdout
    assert accuracy(done.stdout) == evaluated


def test_without_a_recipe_the_preprocessing_is_that_of_imagenet(exported, tmp_path):
    arguments = (exported / "RepVGG-Smoke.onnx", exported / "data", "CPU", 0, "--num_classes", 2)
    done = run(tmp_path, "run_infer_onnx", *arguments)
    assert done.returncode == 66
    assert "has 224 x 224 pixels, but the model takes 32 x 32" in done.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("run_standalone_train_ascend", ["0"], "expected at least 2 arguments, got 1"),
        ("run_standalone_train_ascend", ["one", "file"], "DEVICE_ID one is not a number"),
        ("run_standalone_train_ascend", ["0", "gone.yaml"], "CONFIG_PATH gone.yaml is not a file"),
        ("run_distribute_train_ascend", [], "expected at least 2 arguments, got 0"),
        ("run_distribute_train_ascend", ["gone.json", "file"], "RANK_TABLE_FILE gone.json is not a file"),
        ("run_distribute_train_ascend", ["file", "file"], "RANK_TABLE_FILE file must list the devices of one server"),
        ("run_eval_ascend", ["0", "file"], "expected at least 3 arguments, got 2"),
        ("run_eval_ascend", ["0", "file", "gone.ckpt"], "CHECKPOINT_PATH gone.ckpt is not a file"),
        ("run_infer_310", ["file", "CIFAR10"], "expected at least 3 arguments, got 2"),
        ("run_infer_310", ["gone.mindir", "CIFAR10", "."], "MINDIR_PATH gone.mindir is not a file"),
        ("run_infer_310", ["file", "CIFAR10", "gone"], "DATASET_PATH gone is not a folder"),
        ("run_infer_310", ["file", "CIFAR10", ".", "--batch_size", "1"], "DEVICE_ID --batch_size is not a number"),
        ("run_infer_onnx", ["file"], "expected at least 2 arguments, got 1"),
        ("run_infer_onnx", ["file", ".", "TPU"], "DEVICE_TARGET TPU must be Ascend, GPU or CPU"),
    ],
)
def test_wrong_arguments_are_named_with_the_usage(tmp_path, script, arguments, words):
    (tmp_path / "file").touch()
    done = run(tmp_path, script, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {words}")
    assert f"Usage: {script}.sh [" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_interpreter_is_named(tmp_path):
    done = run(tmp_path, "run_eval_ascend", 0, "file", "file", PYTHON="python9")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error: there is no command python9: set PYTHON to a Python interpreter",
    )


# Replaces the interpreter: records how it was started, and then runs TASK.
RANK = """#!/usr/bin/env bash
[[ $1 != -c ]] || exec {python} "$@"
printf '%s\\n' "$$" "$RANK_ID $DEVICE_ID $RANK_SIZE $RANK_TABLE_FILE" "$*" > note.$RANK_ID
mv note.$RANK_ID rank.$RANK_ID
echo "rank $RANK_ID speaks"
eval "$TASK"
"""
FAIL_ONCE_ALL_RUN = (
    "[[ $RANK_ID == 1 ]] || exec sleep 300; until [[ -e rank.0 && -e rank.2 ]]; do sleep 0.05; done; exit 7"
)


@pytest.fixture
def ranks(tmp_path):
    """A folder with a recipe, a rank table of three devices, and the fake interpreter above."""
    rows = [{"device_id": device, "rank_id": rank} for device, rank in (("6", "2"), ("4", "0"), ("5", "1"))]
    (tmp_path / "table.json").write_text(json.dumps({"server_list": [{"device": rows}]}))
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "python").write_text(RANK.format(python=sys.executable))
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def distribute(ranks, *more, task="", target="Ascend"):
    environ = {"PYTHON": str(ranks / "python"), "DEVICE_TARGET": target, "TASK": task}
    return run(ranks, "run_distribute_train_ascend", "table.json", "recipe.yaml", *more, **environ)


def is_running(note):
    return Path("/proc", note.read_text().split()[0]).exists()


def test_each_device_of_the_table_gets_its_rank(ranks):
    done = distribute(ranks, "--epochs", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "rank 0 speaks\n"
    for rank, device in enumerate("456"):
        _, environ, arguments = (ranks / f"rank.{rank}").read_text().splitlines()
        assert environ == f"{rank} {device} 3 table.json"
        flags = f"--config recipe.yaml --device_target Ascend --epochs 3 --device_id {device}"
        assert arguments == f"-m training.train {flags}"
        assert (ranks / "logs" / f"rank_{rank}.log").read_text() == f"rank {rank} speaks\n"


def test_a_rank_that_fails_ends_the_others(ranks):
    done = distribute(ranks, task=FAIL_ONCE_ALL_RUN)
    assert done.returncode == 7
    assert "a process exited with status 7" in done.stderr
    assert "rank 1 speaks" in done.stderr
    assert not any(map(is_running, ranks.glob("rank.*")))


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_all_ranks(ranks, sent, status):
    environ = environment(PYTHON=str(ranks / "python"), DEVICE_TARGET="Ascend", TASK="exec sleep 300")
    script = command("run_distribute_train_ascend", "table.json", "recipe.yaml")
    with subprocess.Popen(script, cwd=ranks, env=environ, start_new_session=True) as process:
        deadline = time.monotonic() + GENEROUS_S
        while len(notes := list(ranks.glob("rank.*"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)  # polls for the notes of other processes
        os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
        assert process.wait(GENEROUS_S) == status
    assert not any(map(is_running, notes))


def test_without_ascend_the_ranks_get_a_cluster_of_mindspore(ranks):
    done = distribute(ranks, target="CPU", task="env | grep ^MS_ | grep -v ^MS_DEV_ | sort > cluster.$MS_ROLE.$RANK_ID")
    assert done.returncode == 0, done.stderr
    (port,) = re.findall(r"^MS_SCHED_PORT=(\d+)$", (ranks / "cluster.MS_SCHED.").read_text(), re.MULTILINE)
    cluster = f"MS_SCHED_HOST=127.0.0.1\nMS_SCHED_PORT={port}\nMS_WORKER_NUM=3\n"
    assert (ranks / "cluster.MS_SCHED.").read_text() == f"MS_ROLE=MS_SCHED\n{cluster}"
    for rank, device in enumerate("456"):
        assert (ranks / f"cluster.MS_WORKER.{rank}").read_text() == f"MS_NODE_ID={rank}\nMS_ROLE=MS_WORKER\n{cluster}"
        _, environ, arguments = (ranks / f"rank.{rank}").read_text().splitlines()
        assert environ.split() == [str(rank), device, "3"]
        assert arguments == f"-m training.train --config recipe.yaml --device_target CPU --device_id {device}"


def test_a_rank_table_of_two_servers_is_rejected(ranks):
    (ranks / "table.json").write_text(json.dumps({"server_list": [{"device": []}, {"device": []}]}))
    done = distribute(ranks)
    assert done.returncode == 2
    assert "must list the devices of one server" in done.stderr


def test_shellcheck_finds_nothing():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", *SCRIPTS.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
