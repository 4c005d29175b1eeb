import json

import numpy as np
import pytest

from training import postprocess

LOGITS = {
    "a": (0, [9, 1, 2, 3, 4, 5, 6]),  # the best
    "b": (1, [9, 5, 1, 1, 1, 1, 1]),  # the second
    "c": (2, [9, 8, 0, 7, 6, 5, 4]),  # the seventh
    "d": (6, [1, 1, 1, 1, 1, 1, 1]),  # of equal ones the lower classes come first
}


@pytest.fixture
def results(tmp_path):
    """<tmp_path>/results and label.json of the four images above."""
    (tmp_path / "results").mkdir()
    for name, (_, logits) in LOGITS.items():
        (tmp_path / "results" / f"{name}_0.bin").write_bytes(np.array(logits, "<f4").tobytes())
    labels = {"num_classes": 7, "labels": {name: label for name, (label, _) in LOGITS.items()}}
    (tmp_path / "label.json").write_text(json.dumps(labels))
    return tmp_path


def run(results):
    return postprocess.main(["--result_path", str(results / "results"), "--label_path", str(results / "label.json")])


@pytest.mark.usefixtures("cpu")
def test_every_image_counts_as_in_evaluation(results, capsys):
    from training.data.pipeline import Batch
    from training.run.evaluation import evaluate

    assert run(results) == 0
    assert capsys.readouterr().out == "images: 4\nTop1 acc: 0.2500\nTop5 acc: 0.5000\n"

    labels, logits = (np.array(column) for column in zip(*LOGITS.values(), strict=True))

    class Network:
        def set_train(self, mode): ...
        def __call__(self, images):
            return images

    batch = Batch(logits.astype(np.float32), labels.astype(np.int32), len(labels))
    assert evaluate(Network(), [batch]) == (4, 0.25, 0.5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "b_0.bin cannot be read: No such file"),
        (b"", "b_0.bin has 0 bytes"),
        (b"12345", "b_0.bin has 5 bytes, which is not a whole number of float32 values"),
        (np.zeros(6, "<f4").tobytes(), "b_0.bin holds 6 logits, but the label file has 7 classes"),
        (np.full(7, np.nan, "<f4").tobytes(), "b_0.bin holds logits that are not finite"),
    ],
)
def test_a_result_that_is_missing_or_wrong_is_named(results, capsys, content, words):
    path = results / "results" / "b_0.bin"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert run(results) == 66
    assert words in (printed := capsys.readouterr()).err
    assert "Top1" not in printed.out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "label.json cannot be read: No such file"),
        ("no json", "label.json is not a label file written by training.preprocess"),
        ("[]", "label.json is not a label file"),
        ('{"num_classes": 7, "labels": {}}', "label.json must hold at least one label"),
        ('{"num_classes": 7, "labels": {"a": 7}}', "label.json must hold at least one label, each in 0..6"),
    ],
)
def test_an_invalid_label_file_is_named(results, capsys, content, words):
    (results / "label.json").unlink()
    if content is not None:
        (results / "label.json").write_text(content)
    assert run(results) == 66
    assert words in capsys.readouterr().err
