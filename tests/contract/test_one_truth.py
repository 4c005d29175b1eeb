"""Training and serving agree: the same tensors, the same logits, the same predictions."""

from __future__ import annotations

import tarfile
import time
import unicodedata
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.preprocess import preprocess
from models.scores.topk import softmax
from models.store import open_bundle
from service.app import create_app
from service.engines.loading import load_engine
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings
from tests.models.formats.pictures import encode, exif, gif, icc_segments, tiff, with_segment
from tests.models.pixels.test_color import LINEAR, P3

PHOTOS = Path(__file__).parents[3] / "shared/data/imagenet_samples.tar"
COUNT = 24
DOTS = np.random.default_rng(3).integers(0, 256, (40, 50, 4), np.uint8)
GREY_16 = DOTS.view("<u2")[..., 0]
ODD = {
    "turned.jpg": encode(DOTS[..., :3], "JPEG", exif=exif(6)),
    "profile.png": encode(DOTS[..., :3], "PNG", icc_profile=P3),
    "profile.jpg": with_segment(encode(DOTS[..., :3], "JPEG"), icc_segments(LINEAR)),
    "transparent.png": encode(DOTS, "PNG", icc_profile=P3),
    "palette.png": encode(DOTS[..., 0], "PNG"),
    "canvas.gif": gif((4, 3), (1, 1, 2, 1), [1, 2]),
    "deep.tif": tiff(">", GREY_16.astype(">u2").tobytes(), {256: 50, 257: 40, 278: 40, 258: 16, 262: 0, 274: 3}),
    "picture.webp": encode(DOTS, "WEBP", icc_profile=P3, exif=exif(8)),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """<folder>/photos/*.jpeg: an image folder with one class, which training evaluates and the test posts."""
    if not PHOTOS.is_file():
        pytest.skip("the photos ../shared/data/imagenet_samples.tar are absent")
    folder = tmp_path_factory.mktemp("real") / "photos"
    folder.mkdir()
    with tarfile.open(PHOTOS) as archive:
        members = [member for member in archive if member.isfile()][:COUNT]
        for member in members:
            (folder / f"{Path(member.name).stem}.jpeg").write_bytes(archive.extractfile(member).read())
    return folder.parent


@pytest.fixture(scope="module")
def mindspore():
    """MindSpore set up for CPU; some versions emit deprecation warnings about themselves when imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from training.run.distributed import device

        device.prepare("CPU", 0)
        import mindspore
    return mindspore


@pytest.fixture
def serving():
    """`with serving(settings, engine=...) as client`: the application, its model opened."""

    @contextmanager
    def opened(settings, engine=None):
        with TestClient(create_app(settings, engine=engine)) as client:
            until = time.monotonic() + 60
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < until, client.get("/readyz?verbose").text
                time.sleep(0.01)  # polls the start-up in another thread
            yield client

    return opened


@pytest.fixture(scope="module")
def shipped():
    return open_bundle(Settings().model)


def post(client, path):
    return client.post("/classify", content=path.read_bytes(), headers={"Content-Type": "image/jpeg"})


def test_training_evaluates_and_the_service_infers_bit_identical_tensors(mindspore, photos, shipped, serving):
    from training.data.pipeline import evaluation_batches, scan

    folder = scan(photos, 1)
    evaluated = next(evaluation_batches(folder, shipped.manifest.preprocess, len(folder), 2)).images
    served = []

    def remember(images):
        served.extend(images.copy())
        return np.zeros((len(images), len(shipped.labels)), np.float32)

    engine = FakeEngine(len(shipped.labels), shipped.manifest.preprocess.input_size, answer=remember)
    with serving(Settings(), engine=engine) as client:
        served.clear()  # drop the warm-up
        for path, _ in folder.images:
            assert post(client, path).status_code == 200
    np.testing.assert_array_equal(np.stack(served), evaluated)


def test_training_and_the_service_take_the_same_files_of_a_folder_as_images(tmp_path):
    from service.evaluation.evaluate import find_classes
    from training.data.pipeline import scan

    names = ["cat/1.jpg", "cat/2.JFIF", "cat/more/3.webp", "dog/4.apng"]
    for name in [*names, "cat/.5.jpg", "cat/.cache/6.jpg", "cat/notes.txt", ".git/7.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    evaluated = [path for path, _ in scan(tmp_path, 2).images]
    assert evaluated == list(find_classes(tmp_path, ["cat", "dog"])) == [tmp_path / name for name in names]


def test_a_class_name_is_the_same_in_every_normal_form(tmp_path):
    """macOS stores the folder of `café` decomposed, Linux composed."""
    from service.evaluation.evaluate import find_classes
    from training.data.pipeline import scan

    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for name in (decomposed, "tea"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    assert scan(tmp_path, 2).classes == (composed, "tea")
    for label in (composed, decomposed):
        assert find_classes(tmp_path, [label, "tea"])[tmp_path / decomposed / "1.jpg"] == label


def test_mindspore_onnx_runtime_and_the_http_answer_agree(mindspore, photos, shipped, serving):
    paths = sorted((photos / "photos").iterdir())
    tensors = np.stack([preprocess(path.read_bytes(), shipped.manifest.preprocess) for path in paths])
    network = mindspore.nn.GraphCell(mindspore.load(str(shipped.path(shipped.artifact(["mindir"], "fp32")))))
    expected = network(mindspore.Tensor(tensors)).asnumpy()

    engine = load_engine("onnxruntime", shipped, "fp32", 2)
    np.testing.assert_allclose(engine.infer(tensors), expected, atol=1e-4, rtol=0)
    engine.close()

    with serving(Settings(engine="onnxruntime", precision="fp32")) as client:
        for path, logits in zip(paths, expected, strict=True):
            answer = post(client, path).json()
            scores = {prediction["class_id"]: prediction["score"] for prediction in answer["results"][0]["predictions"]}
            probabilities = softmax(logits / shipped.manifest.temperature)
            for class_id, score in scores.items():
                assert score == pytest.approx(probabilities[class_id], abs=1e-4)
            assert len(scores) == 5
            assert min(scores.values()) >= np.sort(probabilities)[-5] - 1e-4


def test_the_golden_logits_are_the_frameworks(mindspore, shipped):
    from models.golden import load

    tensors, expected = load(shipped)
    network = mindspore.nn.GraphCell(mindspore.load(str(shipped.path(shipped.artifact(["mindir"], "fp32")))))
    np.testing.assert_allclose(network(mindspore.Tensor(tensors)).asnumpy(), expected, atol=1e-4, rtol=0)


def test_training_evaluates_and_the_service_infers_bit_identical_tensors_of_odd_pictures(
    mindspore, shipped, serving, tmp_path
):
    """Turned, transparent, in another colour space, of 16 bits, on a canvas: nothing that MindData reads alike."""
    from training.data.pipeline import evaluation_batches, scan

    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, encoded in ODD.items():
        (folder / name).write_bytes(encoded)
    images = scan(tmp_path, 1)
    assert len(images) == len(ODD)
    evaluated = next(evaluation_batches(images, shipped.manifest.preprocess, len(images), 2)).images
    served = []

    def remember(tensors):
        served.extend(tensors.copy())
        return np.zeros((len(tensors), len(shipped.labels)), np.float32)

    engine = FakeEngine(len(shipped.labels), shipped.manifest.preprocess.input_size, answer=remember)
    with serving(Settings(), engine=engine) as client:
        served.clear()  # drop the warm-up
        for path, _ in images.images:
            assert post(client, path).status_code == 200
    np.testing.assert_array_equal(np.stack(served), evaluated)
    assert shipped.manifest.preprocess.icc == "srgb"
    plain = preprocess(ODD["profile.png"], shipped.manifest.preprocess.model_copy(update={"icc": "ignore"}))
    assert not np.array_equal(plain, preprocess(ODD["profile.png"], shipped.manifest.preprocess))
