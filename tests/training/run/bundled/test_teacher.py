"""Distillation: what the teacher sees, what its answers add to the loss, and a run."""

import json

import numpy as np
import pytest

from models.manifest import Preprocess, Training
from models.store import open_bundle
from training import train
from training.config import build

pytestmark = pytest.mark.usefixtures("cpu")

SPEC = {"interpolation": "bilinear", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
RNG = np.random.default_rng(0)


def log_scores(logits, temperature):
    cooled = logits.astype(np.float64) / temperature
    return cooled - np.log(np.exp(cooled).sum(1, keepdims=True))


@pytest.fixture
def teacher_bundle(tmp_path):
    """(labels) -> a bundle of fresh weights with 16 pixels."""

    def write(labels):
        from training.deploy.bundle import publish
        from training.network import repvgg

        network = repvgg.build("RepVGG-Smoke", len(labels), deploy=True).set_train(False)
        folder = tmp_path / "store" / "teacher" / "1"
        training = Training(dataset="", evaluated_on="", recipe="", epochs=0, framework="", git_commit="")
        publish(network, "RepVGG-Smoke", folder, Preprocess(input_size=16, crop_pct=1.0, **SPEC), labels, training,
                golden=None)  # fmt: skip
        return folder

    return write


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_hintons_formula(temperature):
    import mindspore as ms
    from mindspore import nn

    from training.optim.losses import CrossEntropySmooth, Distillation

    logits, taught = (RNG.normal(0, 3, (5, 4)).astype(np.float32) for _ in range(2))
    labels = np.array([0, 3, 1, 1, 2], np.int32)
    loss = Distillation(CrossEntropySmooth(0.0), nn.Identity(), temperature, 0.3)
    found = float(loss(ms.Tensor(taught), ms.Tensor(logits), ms.Tensor(labels)).asnumpy())
    hard = -log_scores(logits, 1.0)[np.arange(5), labels].mean()
    t, s = log_scores(taught, temperature), log_scores(logits, temperature)
    soft = (np.exp(t) * (t - s)).sum(1).mean()
    assert found == pytest.approx(0.7 * hard + 0.3 * temperature**2 * soft, rel=1e-5)


def test_the_teacher_sees_the_batch_as_it_was_trained_to_and_answers_in_the_order_of_the_run(teacher_bundle):
    import mindspore as ms

    from training.run.bundled import teacher
    from training.run.bundled.networks import deploy_network

    folder = teacher_bundle(["cat", "ant", "bee"])
    keys = {"teacher": folder, "image_size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.3, 0.3, 0.3]}
    found = teacher.find(build(keys, source="test"), ["ant", "bee", "cat"])
    pixels = RNG.random((2, 3, 16, 16)).astype(np.float32)
    ours = (pixels - 0.5) / np.float32(0.3)
    mean, std = (np.float32(SPEC[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    expected = deploy_network(open_bundle(folder))(ms.Tensor((pixels - mean) / std)).asnumpy()[:, [1, 2, 0]]
    np.testing.assert_allclose(found(ms.Tensor(ours)).asnumpy(), expected, atol=1e-4)
    doubled = ours.repeat(2, axis=2).repeat(2, axis=3)  # the run's images are larger
    np.testing.assert_allclose(found(ms.Tensor(doubled)).asnumpy(), expected, atol=1e-4)


@pytest.mark.parametrize("size", [16, 24])
def test_a_run_learns_from_a_teacher_that_stays_as_it_is(teacher_bundle, image_folder, tmp_path, size):
    folder = teacher_bundle(["across", "down"])
    keys = ["--set", "ImageFolder", "--data_url", image_folder, "--device_target", "CPU", "--arch", "RepVGG-Smoke"]
    keys += ["--epochs", "1", "--batch_size", "16", "--save_dir", tmp_path, "--image_size", size, "--mix_up", "0.2"]
    assert train.main([str(word) for word in [*keys, "--name", "plain"]]) == 0
    assert train.main([str(word) for word in [*keys, "--name", "taught", "--teacher", folder]]) == 0
    lines = [json.loads((tmp_path / name / "log.jsonl").read_text()) for name in ("plain", "taught")]
    assert np.isfinite(lines[1]["loss"])
    assert lines[0]["loss"] != lines[1]["loss"]
    import mindspore as ms

    names = ms.load_checkpoint(str(tmp_path / "taught" / "last.ckpt")).keys()
    assert names == ms.load_checkpoint(str(tmp_path / "plain" / "last.ckpt")).keys()


def test_a_teacher_of_other_classes_is_refused_by_name(teacher_bundle, image_folder, tmp_path, capsys):
    keys = ["--set", "ImageFolder", "--data_url", image_folder, "--device_target", "CPU", "--arch", "RepVGG-Smoke"]
    keys += ["--save_dir", tmp_path, "--batch_size", "16", "--teacher", teacher_bundle(["cat", "dog"])]
    assert train.main([str(word) for word in keys]) == 78
    assert "knows cat, dog, the images show across, down" in capsys.readouterr().err
