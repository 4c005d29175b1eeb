"""What surrounds a fine-tuning run; the run itself is tested where MindSpore is, in tests/training/run."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from models.store import open_bundle
from training.own import processes, tuning
from training.own.backbone import Backbone
from training.own.classifier.figures import Answers
from training.own.fitting import fit_head
from training.own.photos.collection import collect
from training.own.seen import see


@pytest.fixture
def seen(photos, tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    return see(collect(photos), Backbone(bundle), bundle.manifest.preprocess, seed=0, seconds=0)


@pytest.mark.parametrize(
    ("seconds", "head_only", "reason"),
    [(1e6, True, "as asked"), (1e6, False, "tiny is not of the RepVGG family")],
)
def test_the_reason_is_one_sentence(seen, tiny_bundle, seconds, head_only, reason):
    bundle = open_bundle(tiny_bundle)
    plan = tuning.plan(seen, bundle, Backbone(bundle), seconds, head_only=head_only)
    assert plan.epochs == 0
    assert reason in plan.reason
    assert "\n" not in plan.reason


def test_few_photos_and_little_time_are_reasons_too(seen):
    bundle = open_bundle("repvgg-tiny-cifar10")
    backbone = Backbone(bundle)
    few = tuning.plan(seen, bundle, backbone, 1e6, head_only=False)
    assert "60 photos, 20 of the smallest class, are too few" in few.reason
    short = tuning.plan(seen, bundle, backbone, 50, head_only=False)
    assert short.epochs == 0


def test_enough_photos_and_time_make_a_plan(seen, monkeypatch):
    monkeypatch.setattr(tuning, "LEAST_PHOTOS", 50)
    bundle = open_bundle("repvgg-tiny-cifar10")
    plan = tuning.plan(seen, bundle, Backbone(bundle), 1e6, head_only=False)
    assert plan.epochs == tuning.MOST_EPOCHS
    assert plan.seconds < 1e6


def scored(photos, of_true):
    """Answers that give the true class, 0, these scores."""
    of_true = np.array(of_true)
    logits = np.log(np.stack([of_true, (1 - of_true) / 2, (1 - of_true) / 2], axis=1)).astype(np.float32)
    return Answers(np.array(photos), np.zeros(len(photos), np.int64), logits, 1.0, "a test")


def test_the_tuned_network_is_kept_unless_it_is_worse_on_the_photos_that_both_answered():
    alone = scored([0, 1, 2, 3, 4, 5], [0.5, 0.9, 0.6, 0.5, 0.7, 0.1])
    assert tuning.is_better(scored([3, 1, 0], [0.7, 0.95, 0.8]), alone), "better"
    assert tuning.is_better(scored([3, 1, 0], [0.4, 0.95, 0.55]), alone), "worse by less than the standard error"
    assert not tuning.is_better(scored([3, 1, 0], [0.3, 0.7, 0.4]), alone)
    assert not tuning.is_better(scored([5, 4], [0.05, 0.35]), alone)


def test_scores_count_and_not_only_who_is_right():
    alone = scored([0, 1, 2, 3], [0.6, 0.6, 0.6, 0.3])
    assert tuning.is_better(scored([0, 1, 2, 3], [0.95, 0.95, 0.32, 0.3]), alone), "one right answer fewer"


def test_what_is_held_out_from_the_run_was_held_out_from_a_head(seen, tmp_path):
    outcome = fit_head(seen, 0)
    held_out = tuning._lay_out(seen, outcome, tmp_path / "photos")
    assert set(held_out) == set(np.flatnonzero(outcome.folds == 0))
    linked = {side: sorted((tmp_path / "photos" / side).rglob("*.jpg")) for side in ("train", "val")}
    assert (len(linked["train"]), len(linked["val"])) == (60 - len(held_out), len(held_out))
    assert {path.resolve() for path in linked["val"]} == {seen.photos[index].path.resolve() for index in held_out}
    assert all(path.parent.name == path.resolve().parent.name for path in linked["train"])


def test_the_run_starts_with_a_classifier_that_saw_none_of_what_is_held_out(seen, tiny_bundle, tmp_path):
    outcome, base = fit_head(seen, 0), open_bundle(tiny_bundle)
    started = Backbone(tuning._start(seen, outcome, (base, Backbone(base)), tmp_path / "start" / "1"))
    np.testing.assert_array_equal(started.classifier().weight, outcome.fitted.heads[0].weight)
    assert not np.array_equal(started.classifier().weight, outcome.fitted.head.weight)


def test_the_time_given_is_kept_and_a_run_is_asked_to_stop_before_it_is_killed(tmp_path, monkeypatch):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    (tmp_path / "training" / "polite.py").write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved')))\n"
        "print('begun', flush=True)\ntime.sleep(90)\n"
    )
    monkeypatch.chdir(tmp_path)  # where Python looks first
    start = time.monotonic()
    assert processes.run_verb("polite", [], 20, tmp_path / "log") == "was stopped at the end of its time"
    assert time.monotonic() - start < 85
    assert (tmp_path / "log").read_text() == "begun\nsaved\n"


def test_a_run_that_fails_leaves_the_classifier_alone(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "RECIPE", tmp_path / "missing.yaml")
    said = []
    bundle = open_bundle("repvgg-tiny-cifar10")
    seen = see(collect(photos), Backbone(bundle), bundle.manifest.preprocess, seed=0, seconds=0)
    outcome = fit_head(seen, 0)
    plan, folder = tuning.Plan(5, 100, ""), tmp_path / "tuning"
    assert tuning.tune(seen, outcome, bundle, Backbone(bundle), plan, folder, 0, said.append) is None
    assert "the classifier alone remains" in said[-1]
    assert "missing.yaml cannot be read" in (folder / "run.log").read_text()


def test_the_photos_held_out_choose_no_epoch(seen, tiny_bundle, tmp_path, monkeypatch):
    runs = []

    def verb(name, flags, seconds, log):
        runs.append((name, dict(zip(map(str, flags[::2]), flags[1::2], strict=True))))
        if name == "train":
            (tmp_path / "tuning" / "run").mkdir()
            for file in ("best.ckpt", "last.ckpt"):
                (tmp_path / "tuning" / "run" / file).touch()
            (tmp_path / "tuning" / "run" / "log.jsonl").write_text('{"epoch": 1, "seconds": 2.0}\n')
        return "ended with status 1" if name == "export" else ""

    monkeypatch.setattr(tuning, "run_verb", verb)
    bundle, outcome, said = open_bundle(tiny_bundle), fit_head(seen, 0), []
    plan = tuning.Plan(20, 100, "")
    assert tuning.tune(seen, outcome, bundle, Backbone(bundle), plan, tmp_path / "tuning", 0, said.append) is None
    (_, train), (_, export) = runs
    assert (train["--epochs"], train["--eval_interval"]) == ("20", "2")
    assert "--patience" not in train
    assert export["--pretrained"] == tmp_path / "tuning" / "run" / "last.ckpt"
    assert "could not be exported" in said[-1]


@pytest.mark.parametrize(("penalty", "far"), [(0.07, False), (0.37, True)])
def test_a_network_whose_features_are_not_enough_may_move_far(seen, penalty, far):
    outcome = fit_head(seen, 0)
    outcome = replace(outcome, fitted=replace(outcome.fitted, penalty=penalty))
    flags = tuning._flags(seen, outcome, 0, mirrors=True)
    assert ("--kernel_norms" in flags) == far
    assert ("--backbone_lr" in flags) == far


def test_a_run_without_a_finished_epoch_gave_nothing(seen, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "run_verb", lambda *_: "was stopped at the end of its time")
    bundle, said = open_bundle(tiny_bundle), []
    args = (seen, fit_head(seen, 0), bundle, Backbone(bundle), tuning.Plan(20, 100, ""), tmp_path / "tuning", 0)
    assert tuning.tune(*args, said.append) is None
    assert "fine-tuning gave nothing (was stopped at the end of its time;" in said[-1]


def test_ctrl_c_ends_the_command_without_half_a_bundle(photos, tiny_bundle, tmp_path):
    command = [sys.executable, "-m", "training.start", str(photos), "--out", str(tmp_path / "store/mine/1")]
    process = subprocess.Popen(
        [*command, "--from", str(tiny_bundle)],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    process.stdout.readline()  # what was found
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=200)
    finished = process.returncode == 0  # it was quicker than the signal
    assert finished == (tmp_path / "store/mine/1/manifest.json").exists()
    assert process.returncode in (0, 130)
    assert not list(tmp_path.glob("store/mine/.*"))


def test_there_is_time_for_a_second_run_or_else_the_first_gets_all(seen, monkeypatch):
    monkeypatch.setattr(tuning, "LEAST_PHOTOS", 50)
    monkeypatch.setattr(tuning, "seconds_each", lambda *_: 0.02)
    epoch = 60 * tuning.STEP_COST * 0.02  # seconds, of 60 photos
    bundle = open_bundle("repvgg-tiny-cifar10")
    fixed, backbone = tuning.START_S + tuning.EXPORT_S, Backbone(bundle)

    def plan(seconds):
        return tuning.plan(seen, bundle, backbone, seconds, head_only=False)

    both = plan(2 * fixed + 18.45 * epoch)
    assert (both.epochs, both.seconds) == (8, pytest.approx(fixed + 8.2 * epoch - tuning.EXPORT_S))
    one = plan(fixed + 6.5 * epoch)
    assert (one.epochs, one.seconds) == (6, pytest.approx(fixed + 6.5 * epoch - tuning.EXPORT_S))
    assert plan(fixed + 4 * epoch).epochs == 0


@pytest.fixture
def first_run(seen, tiny_bundle):
    """What `tune` gives for `seen`, without a run: ten epochs of 2 s."""
    bundle, outcome = open_bundle(tiny_bundle), fit_head(seen, 0)
    rows = outcome.folds[outcome.held_out.photos] == 0
    held_out = Answers(
        outcome.held_out.photos[rows], outcome.held_out.labels[rows], outcome.held_out.logits[rows], 1.0, "held out"
    )
    flags = ("--seed", "0")
    return tuning.Tuned(bundle, bundle, held_out, [], (), flags, tuning.Pace(10, 2.0, 20.0, 5.0)), outcome


def test_a_second_run_like_the_first_learns_from_all_photos(seen, tiny_bundle, first_run, tmp_path, monkeypatch):
    (tuned, outcome), said, runs = first_run, [], []
    second = open_bundle(shutil.copytree(tiny_bundle, tmp_path / "again" / "1"))

    def run(flags, seconds, folder, name, say):
        runs.append(dict(zip(flags[::2], flags[1::2], strict=True)) | {"seconds": seconds})
        return second, tuned.pace

    monkeypatch.setattr(tuning, "_run", run)
    start = (tuned.bundle, Backbone(tuned.bundle))
    found = tuning.again(tuned, seen, outcome, start, tmp_path / "tuning", 60, said.append)
    assert said == ["the same run again, on all 60 photos"]
    assert (runs[0]["--epochs"], runs[0]["--seed"], runs[0]["seconds"]) == ("10", "0", 55)
    assert len(list((runs[0]["--data_url"] / "train").rglob("*.jpg"))) == 60
    started = Backbone(open_bundle(runs[0]["--pretrained"]))
    np.testing.assert_array_equal(started.classifier().weight, outcome.fitted.head.weight)
    assert (found.bundle, found.judged) == (second, tuned.bundle)
    np.testing.assert_array_equal(found.answers.logits, tuned.answers.logits)
    assert found.answers.how == "held out from a first run, 12 photos; the network then learnt from all 60 alike"


def test_without_time_for_a_second_run_the_first_remains(seen, first_run, tmp_path):
    (tuned, outcome), said = first_run, []
    start = (tuned.bundle, Backbone(tuned.bundle))
    assert tuning.again(tuned, seen, outcome, start, tmp_path / "tuning", 30, said.append) is tuned
    assert said == ["no second run on all 60 photos, which takes 25 s more: 5 s are left"]


def test_a_second_run_that_fails_leaves_the_first(seen, first_run, tmp_path, monkeypatch):
    (tuned, outcome), said = first_run, []
    monkeypatch.setattr(tuning, "RECIPE", tmp_path / "missing.yaml")
    tuned = replace(tuned, flags=("--config", tmp_path / "missing.yaml"))
    start = (tuned.bundle, Backbone(tuned.bundle))
    assert tuning.again(tuned, seen, outcome, start, tmp_path / "tuning", 60, said.append) is tuned
    assert "the network of the first run remains" in said[-1]
