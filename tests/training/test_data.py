import numpy as np
import pytest

from training.config import build
from training.errors import DataError

pytestmark = pytest.mark.usefixtures("cpu")


def config(root, **values):
    given = {
        "data_url": str(root),
        "num_classes": 2,
        "image_size": 32,
        "crop": "padded",
        "crop_pct": 1.0,
        "batch_size": 8,
    }
    return build(given | values, source="test")


def test_a_missing_folder_is_named(tmp_path):
    from training.data import scan

    with pytest.raises(DataError, match=r"nothing is not a folder: --data_url"):
        scan(tmp_path / "nothing", 2)


def test_an_empty_class_folder_is_named(image_folder):
    from training.data import scan

    for path in (image_folder / "train" / "down").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"train/down holds no image"):
        scan(image_folder / "train", 2)


def test_another_number_of_classes_is_refused(image_folder):
    from training.data import scan

    with pytest.raises(DataError, match="2 class folders, num_classes is 10"):
        scan(image_folder / "train", 10)


@pytest.mark.parametrize("how", ["headers", "pixels"])
def test_broken_images_are_all_named_before_the_run(image_folder, how):
    from training.data import scan, verify

    broken = [image_folder / "train" / "across" / name for name in ("003.jpg", "017.jpg")]
    broken[0].write_bytes(broken[0].read_bytes()[:300])  # MindData would die of SIGFPE
    broken[1].write_text("no image")
    with pytest.raises(DataError) as caught:
        verify(scan(image_folder / "train", 2), how, 2)
    assert all(str(path) in str(caught.value) for path in broken)


def test_a_truncated_body_is_found_when_pixels_are_read(image_folder):
    from training.data import scan, verify

    path = image_folder / "train" / "across" / "003.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    verify(scan(image_folder / "train", 2), "headers", 2)
    with pytest.raises(DataError, match=r"003\.jpg: the JPEG data is broken or truncated"):
        verify(scan(image_folder / "train", 2), "pixels", 2)


@pytest.mark.parametrize("batch_size", [1, 7, 18, 64])
def test_evaluation_counts_every_image_once(image_folder, batch_size):
    from training.data import evaluation_batches, evaluation_spec, scan

    folder = scan(image_folder / "val", 2)
    batches = list(evaluation_batches(folder, evaluation_spec(config(image_folder)), batch_size, 2))
    labels = np.concatenate([batch.labels[: batch.count] for batch in batches])
    assert sum(batch.count for batch in batches) == len(folder) == 18
    assert labels.tolist() == [class_id for _, class_id in folder.images]
    assert {batch.images.shape for batch in batches} == {(batch_size, 3, 32, 32)}


def test_a_training_epoch_is_shuffled_whole_and_repeatable(image_folder):
    from training.data import scan, train_batches

    folder, settings = scan(image_folder / "train", 2), config(image_folder)

    def epoch(number):
        rows = [(row["image"].asnumpy(), row["label"].asnumpy()) for row in train_batches(folder, settings, number)]
        return np.concatenate([images for images, _ in rows]), np.concatenate([labels for _, labels in rows])

    (first, labels), (again, _), (second, _) = epoch(0), epoch(0), epoch(1)
    assert first.shape == (64, 3, 32, 32)
    assert sorted(labels.tolist()) == [0] * 32 + [1] * 32
    assert labels.tolist() != sorted(labels.tolist())
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_without_augmentation_training_sees_what_evaluation_sees(image_folder):
    """Same colours, same normalisation on both ways: only crop and flip may differ."""
    from training.data import evaluation_batches, evaluation_spec, scan, train_batches

    folder = scan(image_folder / "train", 2)
    settings = config(image_folder, crop_padding=0)
    evaluated = next(evaluation_batches(folder, evaluation_spec(settings), len(folder), 2)).images
    for row in train_batches(folder, settings, 0):
        for image in row["image"].asnumpy():
            distances = [min(np.abs(image - e).max(), np.abs(image - e[:, :, ::-1]).max()) for e in evaluated]
            assert min(distances) < 1e-5


def test_fewer_images_than_a_batch_is_an_error(image_folder):
    from training.data import scan, steps_per_epoch

    with pytest.raises(DataError, match="64 images, fewer than one batch of 65"):
        steps_per_epoch(scan(image_folder / "train", 2), config(image_folder, batch_size=65))
