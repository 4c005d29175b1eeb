import shutil

import numpy as np
import pytest
from PIL import Image

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
    from training.data.pipeline import scan

    with pytest.raises(DataError, match=r"nothing is not a folder: it must hold one folder for each class"):
        scan(tmp_path / "nothing", 2)


def test_a_missing_split_is_named_with_the_layout_that_is_expected(tmp_path):
    from training.data.pipeline import open_split

    with pytest.raises(DataError, match=r"val is not a folder: --data_url must hold train/<class>/\* and val/"):
        open_split(config(tmp_path), "val")


def test_an_empty_class_folder_is_named(image_folder):
    from training.data.pipeline import scan

    for path in (image_folder / "train" / "down").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"train/down has no image"):
        scan(image_folder / "train", 2)


def test_another_number_of_classes_is_rejected(image_folder):
    from training.data.pipeline import scan

    with pytest.raises(DataError, match="2 class folders, but there are 10 classes"):
        scan(image_folder / "train", 10)


@pytest.mark.parametrize("batch_size", [1, 7, 18, 64])
def test_evaluation_counts_every_image_once(image_folder, batch_size):
    from training.data.pipeline import evaluation_batches, evaluation_spec, scan

    folder = scan(image_folder / "val", 2)
    batches = list(evaluation_batches(folder, evaluation_spec(config(image_folder)), batch_size, 2))
    labels = np.concatenate([batch.labels[: batch.count] for batch in batches])
    assert sum(batch.count for batch in batches) == len(folder) == 18
    assert labels.tolist() == [class_id for _, class_id in folder.images]
    assert {batch.images.shape for batch in batches} == {(batch_size, 3, 32, 32)}


def test_a_training_epoch_is_shuffled_whole_and_repeatable(image_folder):
    from training.data.pipeline import scan, train_batches

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
    """The colours and the normalisation are the same; only crop and flip may differ."""
    from training.data.pipeline import evaluation_batches, evaluation_spec, scan, train_batches

    folder = scan(image_folder / "train", 2)
    settings = config(image_folder, crop_padding=0)
    evaluated = next(evaluation_batches(folder, evaluation_spec(settings), len(folder), 2)).images
    for row in train_batches(folder, settings, 0):
        for image in row["image"].asnumpy():
            distances = [min(np.abs(image - e).max(), np.abs(image - e[:, :, ::-1]).max()) for e in evaluated]
            assert min(distances) < 1e-5


def test_fewer_images_than_a_batch_is_an_error(image_folder):
    from training.data.pipeline import scan, steps_per_epoch

    with pytest.raises(DataError, match="64 images, fewer than one batch of 65: give batch_size 64 or less"):
        steps_per_epoch(scan(image_folder / "train", 2), config(image_folder, batch_size=65))


def test_decoded_arrays_are_trained_on_and_evaluated_like_files(tmp_path):
    """Fashion-MNIST: grey 28 x 28 arrays, resized as the service resizes a photo of that size."""
    from models.preprocess import to_tensor
    from training.data.pipeline import evaluation_batches, evaluation_spec, open_split, train_batches

    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (11, 28, 28), np.uint8), (np.arange(11) % 10).astype(np.uint8)
    for prefix in ("train", "t10k"):
        header = bytes([0, 0, 8, 3, 0, 0, 0, 11, 0, 0, 0, 28, 0, 0, 0, 28])
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 11]) + labels.tobytes())
    settings = config(tmp_path, set="FashionMNIST", num_classes=10, batch_size=4, crop="random_resized")
    images, spec = open_split(settings, "val"), evaluation_spec(settings)
    batches = list(evaluation_batches(images, spec, 4, 2))
    assert [batch.count for batch in batches] == [4, 4, 3]
    expected = to_tensor(Image.fromarray(pixels[10]).convert("RGB"), spec)
    np.testing.assert_array_equal(batches[2].images[2], expected)
    rows = list(train_batches(open_split(settings, "train"), settings, 0))
    assert [(row["image"].shape, row["label"].shape) for row in rows] == [((4, 3, 32, 32), (4,))] * 2


def test_another_number_of_classes_than_the_files_have_is_rejected(tmp_path, image_folder):
    from training.data.pipeline import open_split

    with pytest.raises(DataError, match="train has 2 classes, but num_classes is 3: give num_classes 2"):
        open_split(config(image_folder, num_classes=3), "train")


def test_a_single_class_is_rejected(tmp_path, draw_image_folder):
    from training.data.pipeline import open_split

    folder = draw_image_folder(tmp_path, {"train": 1})
    shutil.rmtree(folder / "train" / "down")
    with pytest.raises(DataError, match="train has only one class, across: a classifier needs at least two"):
        open_split(config(folder, num_classes=1), "train")


def test_an_image_that_breaks_during_the_epoch_is_named(image_folder):
    from training.data.pipeline import scan, train_batches

    folder = scan(image_folder / "train", 2)
    path = image_folder / "train" / "down" / "005.jpg"
    path.write_text("no image")
    with pytest.raises(DataError, match=r"down/005\.jpg: not a readable image"):
        list(train_batches(folder, config(image_folder), 0))
    path.unlink()
    with pytest.raises(DataError, match=r"down/005\.jpg cannot be read: No such file"):
        list(train_batches(folder, config(image_folder), 0))


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_shards_neither_overlap_nor_lose_an_image_of_a_whole_step(image_folder, num_shards):
    from training.data.pipeline import epoch_order, scan, steps_per_epoch

    folder, settings = scan(image_folder / "train", 2), config(image_folder, batch_size=7)
    steps = steps_per_epoch(folder, settings, num_shards=num_shards)
    shards = [epoch_order(folder, settings, 0, num_shards=num_shards, shard_id=rank) for rank in range(num_shards)]
    assert {len(shard) for shard in shards} == {steps * 7}
    assert steps == 64 // (7 * num_shards)
    assert len(np.unique(np.concatenate(shards))) == steps * 7 * num_shards
    whole = epoch_order(folder, settings.model_copy(update={"batch_size": 7 * num_shards}), 0)
    for step in range(steps):
        together = np.concatenate([shard[step * 7 : (step + 1) * 7] for shard in shards])
        assert set(together) == set(whole[step * 7 * num_shards : (step + 1) * 7 * num_shards])


def test_images_left_out_of_one_epoch_are_seen_in_another(image_folder):
    from training.data.pipeline import epoch_order, scan

    folder, settings = scan(image_folder / "train", 2), config(image_folder, batch_size=48)
    assert set(np.concatenate([epoch_order(folder, settings, epoch) for epoch in range(8)])) == set(range(64))


@pytest.mark.parametrize("num_shards", [1, 2, 5, 20])
def test_sharded_evaluation_counts_every_image_once(image_folder, num_shards):
    from training.data.pipeline import evaluation_batches, evaluation_spec, scan

    folder = scan(image_folder / "val", 2)
    spec = evaluation_spec(config(image_folder))
    counts, labels = [], []
    for rank in range(num_shards):
        for batch in evaluation_batches(folder, spec, 4, 1, num_shards=num_shards, shard_id=rank):
            counts.append(batch.count)
            labels += batch.labels[: batch.count].tolist()
    assert sum(counts) == 18
    assert sorted(labels) == [0] * 9 + [1] * 9


def test_each_shard_reads_its_own_images(image_folder):
    from training.data.pipeline import scan, train_batches

    folder, settings = scan(image_folder / "train", 2), config(image_folder, crop_padding=0)
    first, second = (
        [row["image"].asnumpy() for row in train_batches(folder, settings, 0, num_shards=2, shard_id=rank)]
        for rank in range(2)
    )
    assert len(first) == len(second) == 4
    pictures = np.concatenate(first + second)
    upright = np.minimum(pictures, pictures[..., ::-1]).reshape(64, -1)  # the same whether flipped or not
    assert len(np.unique(upright, axis=0)) == 64


AUGMENTED = [
    {"auto_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4},
    {"auto_augment": "original", "crop": "random_resized"},
    {"auto_augment": "augmix-m5-w4-d2"},
    {"re_prob": 0.5, "re_count": 2},
    {"mix_up": 0.8, "cutmix": 1.0, "mixup_mode": "elem", "re_prob": 0.2, "auto_augment": "augmix-m3"},
]


@pytest.mark.parametrize("keys", AUGMENTED, ids=lambda keys: "-".join(keys))
def test_an_augmented_epoch_is_repeatable_with_several_workers(image_folder, keys):
    from training.data.pipeline import scan, train_batches

    folder, settings = scan(image_folder / "train", 2), config(image_folder, num_parallel_workers=2, **keys)

    def epoch(number, shard_id=0):
        batches = train_batches(folder, settings, number, num_shards=2, shard_id=shard_id)
        rows = [(row["image"].asnumpy(), row["label"].asnumpy()) for row in batches]
        return np.stack([images for images, _ in rows]), np.stack([labels for _, labels in rows])

    (images, labels), again, other = epoch(3), epoch(3), epoch(4)
    assert (images.shape, images.dtype) == ((4, 8, 3, 32, 32), np.float32)
    if "mix_up" in keys:
        assert (labels.shape, labels.dtype) == ((4, 8, 2), np.float32)
        np.testing.assert_allclose(labels.sum(axis=2), 1, atol=1e-6)
    else:
        assert (labels.shape, labels.dtype) == ((4, 8), np.int32)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert not np.array_equal(images, other[0])
    assert not np.array_equal(images, epoch(3, shard_id=1)[0])


@pytest.mark.parametrize("keys", AUGMENTED, ids=lambda keys: "-".join(keys))
def test_the_last_epochs_are_plain_where_the_recipe_says_so(image_folder, keys):
    from training.data.pipeline import scan, train_batches

    folder = scan(image_folder / "train", 2)
    crop = {"crop": keys["crop"]} if "crop" in keys else {}
    augmented, plain = config(image_folder, epochs=4, **keys), config(image_folder, epochs=4, **crop)
    ending_plain = config(image_folder, epochs=4, plain_epochs=2, **keys)
    for epoch, same in ((1, augmented), (2, plain), (3, plain)):
        found, expected = (list(train_batches(folder, settings, epoch)) for settings in (ending_plain, same))
        for batch, other in zip(found, expected, strict=True):
            for column in ("image", "label"):
                np.testing.assert_array_equal(batch[column].asnumpy(), other[column].asnumpy())


@pytest.mark.parametrize("keys", [{}, *AUGMENTED], ids=lambda keys: "-".join(keys) or "plain")
def test_an_epoch_entered_at_a_later_step_continues_with_the_same_batches(image_folder, keys):
    from training.data.pipeline import scan, train_batches

    folder, settings = scan(image_folder / "train", 2), config(image_folder, num_parallel_workers=2, **keys)
    whole, rest = (list(train_batches(folder, settings, 3, first=first)) for first in (0, 5))
    assert (len(whole), len(rest)) == (8, 3)
    for expected, found in zip(whole[5:], rest, strict=True):
        for column in ("image", "label"):
            np.testing.assert_array_equal(found[column].asnumpy(), expected[column].asnumpy())


def test_random_operators_start_anew_after_every_part_of_an_epoch(tmp_path):
    """Steps of one random crop each; the third part is entered in the middle."""
    from training.data.layouts.published import ImageArrays
    from training.data.pipeline import PART, epoch_order, train_batches

    count = 2 * PART + 100
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 4), np.uint8)
    images = ImageArrays(tmp_path, ("a", "b", "c"), pixels, (np.arange(count) % 3).astype(np.int32))
    settings = config(tmp_path, image_size=4, num_classes=3, batch_size=1)
    whole, rest = (
        [
            (row["image"].asnumpy(), int(row["label"].asnumpy()[0]))
            for row in train_batches(images, settings, 0, first=n)
        ]
        for n in (0, 2 * PART + 30)
    )
    assert (len(whole), len(rest)) == (count, 70)
    assert [label for _, label in whole] == (epoch_order(images, settings, 0) % 3).tolist()
    for (expected, _), (found, _) in zip(whole[2 * PART + 30 :], rest, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert list(train_batches(images, settings, 0, first=count)) == []


def test_without_random_operations_two_shards_see_what_one_sees(image_folder):
    from training.data.pipeline import scan, train_batches

    folder, settings = scan(image_folder / "train", 2), config(image_folder, crop_padding=0, hflip=0)
    whole = [row["image"].asnumpy() for row in train_batches(folder, settings, 0)]
    half = settings.model_copy(update={"batch_size": 4})
    shards = [
        [row["image"].asnumpy() for row in train_batches(folder, half, 0, num_shards=2, shard_id=rank)]
        for rank in range(2)
    ]
    for step, together in enumerate(whole):
        dealt = np.stack([shards[0][step], shards[1][step]], axis=1).reshape(together.shape)
        np.testing.assert_array_equal(dealt, together)


def test_more_workers_than_cores_are_no_error(image_folder):
    from training.data.pipeline import scan, train_batches

    settings = config(image_folder, num_parallel_workers=1000)
    assert len(list(train_batches(scan(image_folder / "train", 2), settings, 0))) == 8


def test_images_come_with_their_labels_in_the_epochs_order(tmp_path):
    """The grey level of each image is its number, to recognise it by; more images than are read ahead."""
    from training.data.layouts.published import ImageArrays
    from training.data.pipeline import CHUNK, epoch_order, train_batches

    count = 7 * CHUNK + 5
    pixels = np.broadcast_to((np.arange(count) % 256).astype(np.uint8)[:, None, None], (count, 4, 4))
    images = ImageArrays(tmp_path, ("a", "b", "c"), pixels, (np.arange(count) % 3).astype(np.int32))
    settings = config(tmp_path, image_size=4, crop_padding=0, mean=[0, 0, 0], std=[1, 1, 1], num_classes=3)
    rows = list(train_batches(images, settings, 0))
    order = epoch_order(images, settings, 0)
    assert len(rows) == count // 8
    greys = np.concatenate([row["image"].asnumpy()[:, 0, 0, 0] for row in rows]) * 255
    np.testing.assert_array_equal(np.rint(greys), order % 256)
    np.testing.assert_array_equal(np.concatenate([row["label"].asnumpy() for row in rows]), order % 3)
