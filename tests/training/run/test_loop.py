"""Runs with every option on; the plain run, as a user starts it, is in test_run.py."""

import json
import signal
import time

import numpy as np
import pytest

from training.config import build
from training.errors import DataError, Stopped, TrainingError
from training.run.stopping import StopRequest

pytestmark = pytest.mark.usefixtures("cpu")

EVERYTHING = {
    "arch": "RepVGG-Smoke",
    "num_classes": 2,
    "image_size": 16,
    "crop": "padded",
    "crop_pct": 1.0,
    "batch_size": 8,
    "epochs": 2,
    "optimizer": "adamw",
    "base_lr": 0.002,
    "amp_level": "O1",
    "with_ema": True,
    "ema_decay": 0.9,
    "accumulate_steps": 3,
    "clip_global_norm_value": 5.0,
    "custom_l2": True,
    "mix_up": 0.2,
    "device_target": "CPU",
}


def arrays(parameters):
    return {name: parameter.asnumpy().copy() for name, parameter in parameters.items()}


def feed(run, batches):
    import mindspore as ms

    run.network.set_train(True)
    for images, labels in batches:
        run.step(ms.Tensor(images), ms.Tensor(labels))


def test_a_run_restored_between_two_updates_continues_as_if_it_had_not_stopped(tmp_path):
    from training.run.assembly import assemble
    from training.run.checkpoints import checkpoint

    rng = np.random.default_rng(0)
    batches = [
        (rng.normal(size=(4, 3, 16, 16)).astype(np.float32), rng.dirichlet([1, 1], 4).astype(np.float32))
        for _ in range(8)
    ]
    config = build(EVERYTHING | {"loss_scale": 2.0**30}, source="test")  # the first update overflows
    whole = assemble(config, steps=8)
    path, stop = tmp_path / "stopped.ckpt", 4  # one update of three batches, and one batch more
    feed(whole, batches[:stop])
    checkpoint.save(path, whole.parameters, {})
    feed(whole, batches[stop:])
    again = assemble(config, steps=8)
    checkpoint.restore(again.parameters, checkpoint.read(path), source=path)
    feed(again, batches[stop:])
    assert whole.overflows > 0
    expected, found = arrays(whole.parameters), arrays(again.parameters)
    assert {name.split(".")[0] for name in expected} >= {"stages", "optimizer", "ema", "loss_scale", "accumulated"}
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_run_with_every_option_saves_the_averages_as_its_best(image_folder, tmp_path):
    from training.data.pipeline import open_split
    from training.run.checkpoints import checkpoint
    from training.run.evaluation import evaluate_images
    from training.run.loop import train

    keys = EVERYTHING | {"data_url": str(image_folder), "save_dir": str(tmp_path)}
    config = build(keys | {"loss_scale": 128, "accumulate_steps": 2}, source="test")
    best = train(config)
    lines = [json.loads(line) for line in (best.parent / "log.jsonl").read_text().splitlines()]
    assert [line["overflow_steps"] for line in lines] == [0, 0]
    assert [line["loss_scale"] for line in lines] == [128, 128]
    last, kept = checkpoint.read(best.parent / "last.ckpt"), checkpoint.read(best)
    assert int(last["optimizer.global_step"][0]) == 2 * 8 // 2
    assert (last["ema.classifier.weight"] != last["classifier.weight"]).any()
    top1 = [line["val_top1"] for line in lines]
    assert json.loads(str(last["run"]))["best_top1"] == max(top1)
    assert int(kept["epoch"]) == 1 + int(top1[1] > top1[0])
    network = checkpoint.load_network(best, "RepVGG-Smoke", 2, deploy=False)
    assert evaluate_images(network, open_split(config, "val"), config)[1] == pytest.approx(max(top1), abs=1 / 18)


def test_a_run_continues_from_mixed_to_plain_epochs(image_folder, tmp_path):
    from training.run.loop import train

    keys = EVERYTHING | {"data_url": str(image_folder), "save_dir": str(tmp_path), "plain_epochs": 1}
    best = train(build(keys, source="test"))
    losses = [json.loads(line)["loss"] for line in (best.parent / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_a_whitened_stem_starts_from_the_training_images(image_folder, tmp_path):
    from training.data.pipeline import evaluation_batches, evaluation_spec, open_split
    from training.network.whitening import patch_covariance, whitening_kernels
    from training.run.checkpoints import checkpoint
    from training.run.loop import train

    still = {"stem_init": "whitened", "with_ema": False, "base_lr": 0.0, "min_lr": 0.0, "warmup_lr": 0.0, "epochs": 1}
    keys = EVERYTHING | still | {"data_url": str(image_folder), "save_dir": str(tmp_path), "optimizer": "sgd"}
    config = build(keys, source="test")
    kept = checkpoint.read(train(config).parent / "last.ckpt")
    images = open_split(config, "train")
    (batch,) = evaluation_batches(images, evaluation_spec(config), len(images), 1)
    expected = whitening_kernels(patch_covariance(batch.images), 32)
    np.testing.assert_allclose(kept["stages.0.0.branch_3x3.conv.weight"], expected, rtol=1e-5, atol=1e-6)


def test_a_run_for_other_classes_loads_everything_but_the_classifier(image_folder, tmp_path, capsys):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint
    from training.run.start import start

    before = repvgg.weights(repvgg.build("RepVGG-Smoke", 10))
    checkpoint.save(tmp_path / "ten.ckpt", before, {})
    keys = {"data_url": str(image_folder), "save_dir": str(tmp_path), "pretrained": tmp_path / "ten.ckpt"}
    run, *_ = start(build(EVERYTHING | keys | {"reset_classifier": True}, source="test"))
    assert f"of {tmp_path}/ten.ckpt; new: classifier.weight, classifier.bias" in capsys.readouterr().out
    for name, array in arrays(repvgg.weights(run.network)).items():
        assert array.shape[0] == 2 if name.startswith("classifier.") else (array == before[name].asnumpy()).all()
        assert (run.parameters[f"ema.{name}"].asnumpy() == array).all(), "the average starts there, too"


def test_step_and_evaluation_are_compiled_once(image_folder, tmp_path):
    """18 images in batches of 8 end with an incomplete one; evaluation lies between two epochs."""
    from mindspore.graph.api import ms_compile_cache  # the phases of every compiled function

    from training.data.pipeline import open_split, train_batches
    from training.run.assembly import assemble
    from training.run.evaluation import evaluate_images

    keys = EVERYTHING | {"data_url": str(image_folder), "save_dir": str(tmp_path), "with_ema": False}
    config = build(keys, source="test")
    run, train_images, val_images = assemble(config, 8), open_split(config, "train"), open_split(config, "val")
    compiled = []
    for epoch in range(2):
        run.network.set_train(True)
        for batch in train_batches(train_images, config, epoch):
            run.step(batch["image"], batch["label"])
        assert evaluate_images(run.network, val_images, config)[0] == 18
        compiled.append((len(ms_compile_cache), len(run.network.compile_cache)))
    assert compiled[0] == compiled[1]
    assert compiled[0][1] == 1


def test_a_step_is_compiled_once_for_each_size_of_image(image_folder, tmp_path):
    from mindspore.graph.api import ms_compile_cache

    from training.data.pipeline import open_split, train_batches
    from training.run.assembly import assemble
    from training.run.evaluation import evaluate_images

    keys = {key: EVERYTHING[key] for key in ("arch", "num_classes", "image_size", "batch_size")}
    keys |= {"data_url": str(image_folder), "save_dir": str(tmp_path), "image_sizes": "0:12,1:16", "epochs": 4}
    config = build(keys, source="test")
    run, train_images, val_images = assemble(config, 8), open_split(config, "train"), open_split(config, "val")
    compiled, seen = [], set()
    for _ in range(2):
        for epoch in range(2):
            run.network.set_train(True)
            for batch in train_batches(train_images, config, epoch):
                run.step(batch["image"], batch["label"])
                seen.add((epoch, batch["image"].shape[-1]))
            evaluate_images(run.network, val_images, config)
        compiled.append((len(ms_compile_cache), len(run.network.compile_cache)))
    assert seen == {(0, 12), (1, 16)}
    assert compiled[0] == compiled[1]
    assert compiled[0][1] == 1, "evaluation knows one size"


def test_the_thread_that_waits_for_a_step_does_not_spin(tmp_path):
    """By default MindSpore spins in the meantime, which takes half of all CPU time here."""
    from training.run.assembly import assemble

    keys = {"num_classes": 10, "image_size": 32, "save_dir": str(tmp_path), "mix_up": 0.0}
    run = assemble(build(EVERYTHING | keys, source="test"), steps=9)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(32, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, 32).astype(np.int32)
    feed(run, [batch])  # compiles
    own, all_threads = time.thread_time(), time.process_time()
    for _ in range(6):
        feed(run, [batch])
        run.parameters["classifier.bias"].asnumpy()  # waits for the update
    assert time.thread_time() - own < 0.2 * (time.process_time() - all_threads)


class StopsAt(StopRequest):
    """Requests a stop when it is checked more than `looks` times: after a step, or before a batch is evaluated."""

    def __init__(self, looks):
        self.looks = looks
        super().__init__()

    @property
    def requested(self):
        self.looks -= 1
        return signal.SIGTERM if self.looks < 0 else None

    @requested.setter
    def requested(self, _):
        pass


def test_a_run_stopped_in_an_epoch_and_in_an_evaluation_ends_as_if_it_had_not_been_interrupted(image_folder, tmp_path):
    """Eight steps per epoch and an update every three steps; 18 images are evaluated in three batches."""
    from training.run.checkpoints import checkpoint
    from training.run.loop import train

    def run(folder, stop=None):
        return train(build(keys | {"save_dir": str(tmp_path / folder)}, source="test"), stop)

    keys = EVERYTHING | {"data_url": str(image_folder), "loss_scale": 2.0**30, "resume": "auto"}
    whole = run("whole").parent
    with pytest.raises(Stopped, match=r"SIGTERM after step 4 of epoch 1; .*last\.ckpt is saved, run the same command"):
        run("cut", StopsAt(3))
    with pytest.raises(Stopped, match=r"SIGTERM during the evaluation of epoch 1; .*last\.ckpt is saved"):
        run("cut", StopsAt(4 + 1))
    cut = run("cut").parent
    for name in ("last.ckpt", "best.ckpt"):
        expected, found = checkpoint.read(whole / name), checkpoint.read(cut / name)
        for parameter in set(expected) - {"about"}:  # which names the folder of the run
            np.testing.assert_array_equal(found[parameter], expected[parameter], err_msg=f"{name}: {parameter}")
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (whole, cut)]
    for line in logs[0] + logs[1]:
        assert line.pop("seconds") > 0
        assert line.pop("images_per_second") > 0
    assert logs[0] == logs[1]
    assert [line["epoch"] for line in logs[0]] == [1, 2]
    assert logs[0][0]["overflow_steps"] > 0


def test_a_run_stopped_at_its_second_image_size_ends_as_if_it_had_not_been_interrupted(image_folder, tmp_path):
    """The first epoch has eight steps and three batches to evaluate."""
    from training.run.checkpoints import checkpoint
    from training.run.loop import train

    def run(folder, stop=None):
        return train(build(keys | {"save_dir": str(tmp_path / folder)}, source="test"), stop)

    keys = {key: EVERYTHING[key] for key in ("arch", "num_classes", "image_size", "batch_size", "epochs", "with_ema")}
    keys |= {"data_url": str(image_folder), "image_sizes": "0:12,1:16", "optimizer": "nesterov", "base_lr": 0.01}
    whole = run("whole")
    with pytest.raises(Stopped, match="after step 3 of epoch 2"):
        run("cut", StopsAt(8 + 3 + 2))
    assert (tmp_path / "cut" / whole.parent.name / "curves.png").is_file(), "of the first epoch"
    cut = run("cut")
    for name in ("last.ckpt", "best.ckpt"):
        expected, found = checkpoint.read(whole.with_name(name)), checkpoint.read(cut.with_name(name))
        for parameter in set(expected) - {"run", "about"}:
            np.testing.assert_array_equal(found[parameter], expected[parameter], err_msg=f"{name}: {parameter}")
    logs = [best.with_name("log.jsonl").read_text().splitlines() for best in (whole, cut)]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert losses[0] == losses[1]


def test_a_run_resumed_in_another_folder_finds_its_own_best(image_folder, tmp_path):
    from training.run import resume
    from training.run.assembly import assemble
    from training.run.start import start

    keys = EVERYTHING | {"data_url": str(image_folder), "save_dir": str(tmp_path / "one")}
    config = build(keys, source="test")
    last, progress = config.run_dir / "last.ckpt", resume.Progress(epoch=1, best_top1=0.9)
    resume.save(last, assemble(config, 8).parameters, progress, config, 8)
    last.with_name("best.ckpt").touch()
    assert start(config)[1] == progress
    elsewhere = build(keys | {"save_dir": str(tmp_path / "two"), "resume": str(last)}, source="test")
    assert start(elsewhere)[1] == resume.Progress(epoch=1)
    next((image_folder / "val").glob("*/*")).write_bytes(b"broken since")
    with pytest.raises(DataError, match=r"^1 broken image; repair or remove"):
        start(config)


def test_epochs_are_evaluated_at_the_interval_and_at_the_end(image_folder, tmp_path):
    from training.run.loop import train

    plain = {key: EVERYTHING[key] for key in ("arch", "num_classes", "image_size", "crop", "crop_pct", "batch_size")}
    folders = {"data_url": str(image_folder), "save_dir": str(tmp_path / "runs")}
    best = train(build(plain | folders | {"epochs": 3, "eval_interval": 2}, source="test"))
    assert best.is_file()
    lines = [json.loads(line) for line in best.with_name("log.jsonl").read_text().splitlines()]
    assert ["val_top1" in line for line in lines] == [False, True, True]
    assert ["val_top5" in line for line in lines] == [False, True, True]


def test_a_folder_that_cannot_be_written_to_is_an_error_before_the_first_epoch(image_folder, tmp_path):
    from training.run.loop import train

    (tmp_path / "file").write_text("in the way")
    keys = EVERYTHING | {"data_url": str(image_folder), "save_dir": str(tmp_path / "file")}
    with pytest.raises(TrainingError, match="cannot be written"):
        train(build(keys, source="test"))


def test_an_epoch_of_nothing_but_overflows_stops_the_run(image_folder, tmp_path):
    from training.run.loop import train

    plain = {key: EVERYTHING[key] for key in ("arch", "num_classes", "image_size", "crop", "crop_pct", "batch_size")}
    static = {"amp_level": "O1", "is_dynamic_loss_scale": False, "loss_scale": 2.0**40, "epochs": 1}
    folders = {"data_url": str(image_folder), "save_dir": str(tmp_path / "runs")}
    with pytest.raises(TrainingError, match=r"every update of epoch 1 overflowed, loss scale 1\.09951e\+12"):
        train(build(plain | static | folders, source="test"))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_qarepvgg_is_trained_and_exported_like_a_repvgg(image_folder, tmp_path):
    import mindspore as ms
    from onnx.reference import ReferenceEvaluator

    from models.golden import load
    from training.deploy import bundle
    from training.network import repvgg
    from training.run.checkpoints import checkpoint
    from training.run.loop import train

    keys = {"arch": "QARepVGG-Smoke", "num_classes": 2, "image_size": 16, "crop": "padded", "crop_pct": 1.0}
    keys |= {"batch_size": 16, "epochs": 2, "data_url": image_folder, "save_dir": tmp_path, "device_target": "CPU"}
    config = build(keys, source="test")
    best = train(config)
    written = bundle.export_bundle(config, best, tmp_path / "stripes" / "1", golden=None, recipe=None)
    manifest = written.manifest
    log = [json.loads(line) for line in (config.run_dir / "log.jsonl").read_text().splitlines()]
    assert log[1]["loss"] < log[0]["loss"]
    assert manifest.training.top1 == max(line["val_top1"] for line in log) > 0.5
    assert manifest.network.variant == "QARepVGG-Smoke"
    deploy = repvgg.build("RepVGG-Smoke", 2, deploy=True)
    assert manifest.network.parameters == sum(parameter.size for parameter in deploy.trainable_params())

    tensors, logits = load(written)
    train_form = checkpoint.load_network(best, "QARepVGG-Smoke", 2, deploy=False)
    np.testing.assert_allclose(train_form(ms.Tensor(tensors)).asnumpy(), logits, atol=1e-4, rtol=0)
    model = ReferenceEvaluator(str(written.path(written.artifact(["onnx"], "fp32"))))
    np.testing.assert_allclose(model.run(None, {"image": tensors})[0], logits, atol=1e-4, rtol=0)


def test_a_repvgg_checkpoint_is_rejected_for_qarepvgg(tmp_path):
    from training.errors import CheckpointError
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    path = tmp_path / "repvgg.ckpt"
    checkpoint.save(path, repvgg.weights(repvgg.build("RepVGG-Smoke", 2)), {})
    for deploy in (False, True):
        with pytest.raises(CheckpointError, match=r"missing: stages\.0\.0\.bn\.beta(.|\n)*unused: .*branch_1x1\.bn"):
            checkpoint.load_network(path, "QARepVGG-Smoke", 2, deploy=deploy)
