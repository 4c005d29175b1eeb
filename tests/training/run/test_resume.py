import json

import pytest

from training.config import build
from training.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.usefixtures("cpu")

KEYS = {"arch": "RepVGG-Tiny", "num_classes": 2}
STEPS = 40


def config(folder, **more):
    return build(KEYS | {"save_dir": str(folder)} | more, source="test")


def parameters(value):
    import mindspore as ms

    return {"weight": ms.Parameter(ms.Tensor([value, 2.0], ms.float32))}


def progress():
    from training.run.resume import Progress

    return Progress(
        epoch=3, best_top1=1 / 3, step=7, loss_sum=0.1 + 0.2, right=9, seconds=1.7, updates=120, overflows=2
    )


@pytest.fixture
def last(tmp_path):
    """last.ckpt of the run described by `config(tmp_path)`."""
    from training.run import resume

    path = tmp_path / "RepVGG-Tiny-ImageNet" / "last.ckpt"
    resume.save(path, parameters(1.0), progress(), config(tmp_path), STEPS)
    return path


def test_a_run_is_restored_bit_for_bit(last, tmp_path):
    from training.run import resume

    fresh = parameters(0.0)
    found = resume.restore(last, fresh, config(tmp_path), STEPS)
    assert found == progress()
    assert fresh["weight"].asnumpy().tolist() == [1.0, 2.0]
    assert str(found) == "step 7 of epoch 4"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"arch": "RepVGG-A0"}, "belongs to a run with arch RepVGG-Tiny, this run has arch RepVGG-A0"),
        ({"num_classes": 3, "optimizer": "lion"}, "with num_classes 2, optimizer momentum, this run has num_classes 3"),
        ({"with_ema": True}, "with_ema False, this run has with_ema True"),
        ({"accumulate_steps": 4}, "accumulate_steps 1, this run has accumulate_steps 4"),
    ],
)
def test_a_checkpoint_of_another_run_is_rejected_and_the_error_says_what_differs(last, tmp_path, more, words):
    from training.run import resume

    fresh = parameters(0.0)
    with pytest.raises(CheckpointError, match=words):
        resume.restore(last, fresh, config(tmp_path, **more), STEPS)
    assert fresh["weight"].asnumpy().tolist() == [0.0, 2.0]


def test_another_number_of_steps_per_epoch_is_rejected_because_the_position_in_the_epoch_is_lost(last, tmp_path):
    from training.run import resume

    with pytest.raises(CheckpointError, match="with steps_per_epoch 40, this run has steps_per_epoch 80"):
        resume.restore(last, parameters(0.0), config(tmp_path), 80)


def test_weights_alone_cannot_be_resumed(tmp_path):
    from training.run import resume
    from training.run.checkpoints import checkpoint

    path = tmp_path / "best.ckpt"
    checkpoint.save(path, parameters(1.0), {"epoch": 1})
    with pytest.raises(
        CheckpointError, match=r"best\.ckpt holds weights but no run to resume.*--pretrained .*best\.ckpt"
    ):
        resume.restore(path, parameters(0.0), config(tmp_path), STEPS)


def test_auto_resumes_from_the_last_checkpoint_if_there_is_one(last, tmp_path):
    from training.run.resume import find_checkpoint

    assert find_checkpoint(config(tmp_path)) == last
    assert find_checkpoint(config(tmp_path / "elsewhere")) is None
    assert find_checkpoint(config(tmp_path / "elsewhere", resume="none")) is None


def test_a_checkpoint_file_is_resumed_in_its_own_folder_or_an_empty_one(last, tmp_path):
    from training.run.resume import find_checkpoint

    assert find_checkpoint(config(tmp_path, resume=str(last))) == last
    assert find_checkpoint(config(tmp_path / "elsewhere", resume=str(last))) == last
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(last.read_bytes())
    with pytest.raises(ConfigError, match=r"RepVGG-Tiny-ImageNet holds last\.ckpt of another run"):
        find_checkpoint(config(tmp_path, resume=str(copy)))


def test_a_run_is_never_overwritten_by_another_one(last, tmp_path):
    from training.run.resume import find_checkpoint

    with pytest.raises(ConfigError, match=r"holds last\.ckpt of .* \(--resume auto\), or choose another --name"):
        find_checkpoint(config(tmp_path, resume="none"))
    last.unlink()
    assert find_checkpoint(config(tmp_path, resume="none")) is None
    log = last.with_name("log.jsonl")
    log.write_text("")
    assert find_checkpoint(config(tmp_path)) is None, "a run that left nothing yet"
    log.write_text(json.dumps({"epoch": 1}) + "\n")
    with pytest.raises(ConfigError, match=r"holds log\.jsonl of another run, .*: choose another --name"):
        find_checkpoint(config(tmp_path))
