import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import CheckpointError

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture
def saved(tmp_path):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    path = tmp_path / "net.ckpt"
    checkpoint.save(path, repvgg.weights(repvgg.build("RepVGG-Tiny", 3)), {"epoch": 7, "top1": 0.5})
    return path


def test_a_checkpoint_is_read_back_with_its_progress(saved):
    from training.run.checkpoints import checkpoint

    contents = checkpoint.read(saved)
    assert (int(contents["epoch"]), float(contents["top1"])) == (7, 0.5)
    assert [path.name for path in saved.parent.iterdir()] == ["net.ckpt"], "no draft is left behind"


def test_every_missing_unused_and_misshapen_parameter_is_named(saved):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    weights = checkpoint.network_weights(checkpoint.read(saved))
    del weights["stages.0.0.branch_1x1.conv.weight"]
    weights["stages.9.9.conv.weight"] = weights["classifier.bias"]
    network = repvgg.build("RepVGG-Tiny", 4)
    before = network.classifier.bias.asnumpy().copy()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(repvgg.weights(network), weights, source=saved)
    for text in (
        "missing: stages.0.0.branch_1x1.conv.weight",
        "unused: stages.9.9.conv.weight",
        "classifier.bias: shape (3,), expected (4,)",
    ):
        assert text in str(caught.value)
    assert (network.classifier.bias.asnumpy() == before).all(), "nothing is half-loaded"


def test_a_network_for_other_classes_starts_from_a_checkpoint_only_on_request(saved):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    weights = checkpoint.network_weights(checkpoint.read(saved))
    parameters = repvgg.weights(repvgg.build("RepVGG-Tiny", 4))
    before = {name: parameter.asnumpy().copy() for name, parameter in parameters.items()}
    message = r"net\.ckpt fits except for its classifier \(.*shape \(3,\), expected \(4,\).*: --reset_classifier True"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.start_from(parameters, weights, reset_classifier=False, source=saved)
    assert all((parameters[name].asnumpy() == before[name]).all() for name in before), "nothing is half-loaded"
    fresh = checkpoint.start_from(parameters, weights, reset_classifier=True, source=saved)
    assert fresh == ["classifier.weight", "classifier.bias"]
    for name, parameter in parameters.items():
        assert (parameter.asnumpy() == (before if name in fresh else weights)[name]).all(), name


def test_resetting_the_classifier_does_not_allow_other_mismatches(saved):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    weights = checkpoint.network_weights(checkpoint.read(saved))
    del weights["stages.0.0.branch_1x1.conv.weight"]
    parameters = repvgg.weights(repvgg.build("RepVGG-Tiny", 4))
    for reset in (False, True):
        with pytest.raises(CheckpointError, match=r"another network .*\n  missing: stages\.0\.0\.branch_1x1"):
            checkpoint.start_from(parameters, weights, reset_classifier=reset, source=saved)


def test_training_cannot_start_from_a_fused_network(tmp_path):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    fused = {name: each.asnumpy() for name, each in repvgg.weights(repvgg.build("RepVGG-Tiny", 3, deploy=True)).items()}
    parameters = repvgg.weights(repvgg.build("RepVGG-Tiny", 3))
    with pytest.raises(CheckpointError, match=r"fused\.ckpt is fused and has no branches to train"):
        checkpoint.start_from(parameters, fused, reset_classifier=False, source=tmp_path / "fused.ckpt")


def test_a_missing_checkpoint_is_named(tmp_path):
    from training.run.checkpoints import checkpoint

    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        checkpoint.read(tmp_path / "gone.ckpt")


def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path):
    from training.run.checkpoints import checkpoint

    path = tmp_path / "text.ckpt"
    path.write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.ckpt is not a readable checkpoint"):
        checkpoint.read(path)


def test_a_write_error_leaves_no_files(tmp_path):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save(tmp_path / "file" / "net.ckpt", repvgg.weights(repvgg.build("RepVGG-Tiny", 3)), {})
    assert (tmp_path / "file").read_text() == "in the way"


# No file of this process may exceed 100 kB, even for root (Python ignores the signal and raises OSError).
FULL_DISK = """
import resource, sys
from pathlib import Path
from training.run.distributed import device
device.prepare("CPU", 0)
import mindspore as ms
from training.run.checkpoints import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
checkpoint.save(Path(sys.argv[1]), {"weight": ms.Parameter(ms.Tensor([0.0] * 50_000, ms.float32))}, {})
"""


def test_a_full_disk_is_an_error_and_keeps_the_last_checkpoint(saved):
    before = saved.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, saved], cwd=ROOT, capture_output=True, text=True)
    assert f"CheckpointError: {saved} cannot be written" in done.stderr.splitlines()[-1]
    assert [path.read_bytes() for path in saved.parent.iterdir()] == [before]


def test_text_in_a_checkpoint_is_read_back(tmp_path):
    from training.run.checkpoints import checkpoint

    path = tmp_path / "net.ckpt"
    checkpoint.save(path, {}, {"words": '{"straße": "a \\"b\\""}'})
    assert str(checkpoint.read(path)["words"]) == '{"straße": "a \\"b\\""}'


def test_both_forms_are_recognised(saved, tmp_path):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    deploy = checkpoint.load_network(saved, "RepVGG-Tiny", 3, deploy=True)
    path = tmp_path / "deploy.ckpt"
    checkpoint.save(path, repvgg.weights(deploy), {})
    assert checkpoint.is_train_form(checkpoint.read(saved))
    assert not checkpoint.is_train_form(checkpoint.read(path))
    assert set(repvgg.weights(checkpoint.load_network(path, "RepVGG-Tiny", 3, deploy=False))) == set(
        repvgg.weights(deploy)
    )


def test_the_weights_of_a_run_that_averages_them_are_the_averages(tmp_path):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    now, average = repvgg.weights(repvgg.build("RepVGG-Tiny", 3)), repvgg.weights(repvgg.build("RepVGG-Tiny", 3))
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, now | {f"ema.{name}": parameter for name, parameter in average.items()}, {"epoch": 1})
    found = checkpoint.load_network(path, "RepVGG-Tiny", 3, deploy=False)
    expected = average["classifier.weight"].asnumpy()
    assert (found.classifier.weight.asnumpy() == expected).all()
    assert (now["classifier.weight"].asnumpy() != expected).any()
