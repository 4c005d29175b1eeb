"""Each promise of the seam, with real runs of a few seconds."""

import csv
import json
import struct
import sys
from types import SimpleNamespace

import pytest

from training.config import build
from training.errors import ConfigError
from training.run.distributed.device import SINGLE_PROCESS

pytestmark = pytest.mark.usefixtures("cpu")

KEYS = {
    "arch": "RepVGG-Smoke",
    "num_classes": 2,
    "image_size": 16,
    "crop": "padded",
    "crop_pct": 1.0,
    "batch_size": 32,
    "device_target": "CPU",
}
CALLS = []


def noting(name, reason_at=None):
    from training.run.callbacks import Callback

    class Noting(Callback):
        def on_start(self, run, progress):
            CALLS.append((name, "start", progress.epoch))

        def on_epoch_start(self, run, epoch):
            CALLS.append((name, "epoch", epoch))

        def on_epoch_end(self, report):
            assert report.run.config.run_dir.is_dir()
            CALLS.append((name, "end", report.line["epoch"], report.progress.epoch))
            return "I have seen enough" if report.line["epoch"] == reason_at else None

        def on_end(self, run):
            CALLS.append((name, "ended"))

    return Noting()


def first(config):
    return noting("first")


def second(config):
    return noting("second", reason_at=2)


def not_a_callback(config):
    return config


def train(image_folder, tmp_path, **keys):
    from training.run.loop import train

    folders = {"data_url": str(image_folder), "save_dir": str(tmp_path / "runs")}
    return train(build(KEYS | folders | keys, source="test"))


def log_of(best):
    return [json.loads(line) for line in best.with_name("log.jsonl").read_text().splitlines()]


def test_callbacks_are_called_in_the_order_of_the_recipe_and_may_end_the_run(image_folder, tmp_path, capsys):
    names = [f"{__name__}:{name}" for name in ("first", "second")]
    CALLS.clear()
    best = train(image_folder, tmp_path, callbacks=names, epochs=9)
    expected = [("first", "start", 0), ("second", "start", 0)]
    for epoch in range(2):
        expected += [(name, "epoch", epoch) for name in ("first", "second")]
        expected += [(name, "end", epoch + 1, epoch + 1) for name in ("first", "second")]
    expected += [("first", "ended"), ("second", "ended")]
    assert expected == CALLS
    assert "ended after epoch 2: I have seen enough" in capsys.readouterr().out
    train(image_folder, tmp_path, callbacks=names, epochs=9)
    assert CALLS[len(expected) :] == [
        ("first", "start", 2),
        ("second", "start", 2),
        ("first", "ended"),
        ("second", "ended"),
    ], "a run that ended is not resumed"
    assert len(log_of(best)) == 2


def test_a_run_ends_after_patience_epochs_that_are_no_better(image_folder, tmp_path, capsys):
    still = {"base_lr": 0.0, "min_lr": 0.0, "warmup_lr": 0.0, "optimizer": "sgd", "epochs": 9}
    best = train(image_folder, tmp_path, patience=2, **still)
    lines = log_of(best)
    top1 = [line["val_top1"] for line in lines]
    assert max(top1[-2:]) <= max(top1[:-2]), "the last two are not better than the best before"
    assert len(lines) < 9
    assert "for 2 epochs (patience)" in capsys.readouterr().out


def test_the_table_and_the_event_file_hold_the_lines_of_the_log(image_folder, tmp_path):
    keys = {"callbacks": "csv,tensorboard", "epochs": 3, "eval_interval": 2}
    best = train(image_folder, tmp_path, **keys)
    lines = log_of(best)
    with best.with_name("log.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert rows == lines
    (events,) = best.parent.glob("events.out.tfevents.*")
    assert found_in(events.read_bytes()) == [
        {name: pytest.approx(value, rel=1e-6) for name, value in line.items()} for line in lines
    ]


def found_in(content):
    """The scalars of each step."""
    found = {}
    for event in records(content):
        if 5 in event:
            values = [dict(fields(value)) for _, value in fields(event[5])]
            line = found.setdefault(event[2], {"epoch": event[2]})
            line |= {value[1].decode(): value[2] for value in values}
    return list(found.values())


def records(content):
    """The events; written from the formats of TFRecord and of protocol buffers."""
    at = 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield dict(fields(content[at + 12 : at + 12 + length]))
        at += 12 + length + 4


def fields(message):
    at = 0

    def varint():
        nonlocal at
        number, shift = 0, 0
        while True:
            byte = message[at]
            at, number, shift = at + 1, number | (byte & 127) << shift, shift + 7
            if byte < 128:
                return number

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            size = varint()
            yield key >> 3, message[at : at + size]
            at += size
        else:
            form = {1: "<d", 5: "<f"}[key & 7]
            yield key >> 3, struct.unpack_from(form, message, at)[0]
            at += struct.calcsize(form)


def test_a_run_that_goes_on_tells_tensorboard_to_forget_what_it_repeats(image_folder, tmp_path):
    from training.run.resume import Progress
    from training.run.tensorboard import tensorboard

    config = build(KEYS | {"save_dir": str(tmp_path)}, source="test")
    callback = tensorboard(config)
    callback.on_start(SimpleNamespace(config=config, process=SINGLE_PROCESS), Progress(epoch=3))
    callback.on_end(None)
    (events,) = config.run_dir.glob("events.out.tfevents.*")
    started = [event for event in records(events.read_bytes()) if 7 in event]
    assert [(event[2], dict(fields(event[7]))) for event in started] == [(4, {1: 1})]


def test_without_tensorboardx_the_extra_is_named(monkeypatch, image_folder, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"pip install 'repvgg\[tensorboard\]'"):
        train(image_folder, tmp_path, callbacks=["tensorboard"], epochs=1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tensorbord", "'tensorbord' is neither csv, tensorboard nor package.module:function"),
        (f"{__name__}:gone", "gone"),
        (f"{__name__}:not_a_callback", "not_a_callback returned .*, not a training.run.callbacks.Callback"),
    ],
)
def test_a_callback_that_cannot_be_built_is_an_error_before_the_first_step(image_folder, tmp_path, name, words):
    with pytest.raises(ConfigError, match=words):
        train(image_folder, tmp_path, callbacks=[name], epochs=1)
    assert not (tmp_path / "runs").exists()


def test_frozen_stages_keep_their_weights(image_folder, tmp_path):
    from training.run.checkpoints import checkpoint

    best = train(image_folder, tmp_path, freeze=2, epochs=1, eval_interval=1)
    start = checkpoint.read(train(image_folder, tmp_path / "still", base_lr=0.0, min_lr=0.0, warmup_lr=0.0, epochs=1))
    changed = {
        name.split(".")[1]
        for name, array in checkpoint.network_weights(checkpoint.read(best)).items()
        if name.endswith("conv.weight") and (array != start[name]).any()
    }
    assert changed == {"2", "3", "4"} & changed
    assert changed


class Clock:
    """Each reading is `step` seconds later."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


@pytest.mark.parametrize(("seconds", "made"), [(1000, 9), (32, 4), (14, 1)])
def test_a_run_of_limited_time_makes_fewer_epochs_by_a_schedule_of_that_length(
    image_folder, tmp_path, monkeypatch, seconds, made
):
    from training.run import callbacks

    limit = callbacks.TimeLimit(seconds, Clock(5))  # three readings until the end of the first epoch, then one an epoch
    monkeypatch.setattr(callbacks, "TimeLimit", lambda _seconds: limit)
    keys = {"base_lr": 0.1, "min_lr": 0.0, "epochs": 9, "eval_interval": 9, "minutes": 1, "backbone_lr": 0.5}
    best = train(image_folder, tmp_path, **keys)
    lines = log_of(best)
    assert len(lines) == made
    if made > 1:
        assert "val_top1" in lines[-1], "the last epoch is evaluated"
    if made == 4:
        assert lines[0]["lr"] > 0.09, "the first epoch was of a longer run"
        assert lines[-1]["lr"] < 0.01


@pytest.mark.parametrize(("epochs_s", "left"), [([9, 2, 2, 9, 2, 2], 12), ([9, 2, 2, 9, 9, 2], 6)])
def test_a_single_slow_epoch_shortens_no_run_of_limited_time(epochs_s, left):
    from training.run import callbacks

    now_s = [0.0]
    limit, progress = callbacks.TimeLimit(45, lambda: now_s[0]), SimpleNamespace(epoch=0, epochs=12)
    for seconds in epochs_s:
        now_s[0] += seconds
        progress.epoch += 1
        run = SimpleNamespace(config=SimpleNamespace(epochs=progress.epochs))
        limit.on_epoch_end(callbacks.Report(run, {}, progress))
    assert progress.epochs == left


def test_fixed_statistics_stay_while_scales_learn(image_folder, tmp_path):
    from training.run.checkpoints import checkpoint

    still = {"base_lr": 0.0, "min_lr": 0.0, "warmup_lr": 0.0}
    paths = [
        train(image_folder, tmp_path / name, epochs=1, fixed_statistics=True, **keys)
        for name, keys in (("moving", {}), ("still", still))
    ]
    learnt, start = (checkpoint.network_weights(checkpoint.read(path)) for path in paths)
    norms = [name for name in start if ".moving_" in name]
    assert norms
    assert all((learnt[name] == start[name]).all() for name in norms)
    assert any((learnt[name] != start[name]).any() for name in start if name.endswith(".gamma"))
