"""What a checkpoint says about itself, and what is compared with it."""

import json
import shutil

import numpy as np
import pytest

from training.config import build
from training.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.usefixtures("cpu")

KEYS = {
    "arch": "RepVGG-Smoke",
    "image_size": 16,
    "crop": "padded",
    "crop_pct": 1.0,
    "batch_size": 16,
    "epochs": 1,
    "device_target": "CPU",
}


def config_of(tmp_path, image_folder, **more):
    folders = {"data_url": str(image_folder), "save_dir": str(tmp_path / "runs")}
    return build(KEYS | folders | more, source="test")


@pytest.fixture(scope="module")
def finished(cpu, draw_image_folder, tmp_path_factory):
    """-> images like those of `image_folder`, and best.ckpt of a run of one epoch on them."""
    from training.run.loop import train

    folder = tmp_path_factory.mktemp("finished")
    images = draw_image_folder(folder / "data", {"train": 32, "val": 9})
    return images, train(config_of(folder, images))


@pytest.fixture
def best(finished, tmp_path):
    """The finished run's best.ckpt, in the folder of a run of this test."""
    folder = finished[1].parent
    return shutil.copytree(folder, tmp_path / "runs" / folder.name) / "best.ckpt"


def without_about(path, copy):
    """The same checkpoint as an older version wrote it."""
    import mindspore as ms

    entries = ms.load_checkpoint(str(path))
    text = {name: value for name, value in entries.items() if isinstance(value, str) and name != "about"}
    parameters = [{"name": name, "data": value} for name, value in entries.items() if not isinstance(value, str)]
    copy.parent.mkdir(parents=True, exist_ok=True)
    ms.save_checkpoint(parameters, str(copy), append_dict=text)
    copy.chmod(0o644)
    return copy


def test_classes_preprocessing_recipe_images_and_code_travel_in_every_checkpoint(finished):
    from training.data.pipeline import evaluation_spec
    from training.run.checkpoints import about, checkpoint

    images, best = finished
    config = config_of(images.parent, images)
    for path in (best, best.with_name("last.ckpt")):
        found = about.parse(checkpoint.read(path), path)
        assert found.classes == ("across", "down")
        assert found.preprocess == json.loads(evaluation_spec(config).model_dump_json())
        assert found.recipe == json.loads(config.model_copy(update={"num_classes": 2}).model_dump_json())
        assert {split: text.split(",")[0] for split, text in found.images.items()} == {
            "train": "64 images",
            "val": "18 images",
        }
        assert found.code.startswith("repvgg ")
        assert found.framework.startswith("mindspore 2")


def test_twenty_thousand_class_names_of_any_script_survive(tmp_path):
    import mindspore as ms

    from models.manifest import Preprocess
    from training.run.checkpoints import about, checkpoint

    names = [f"Käse, 漢字 😀 {number}" for number in range(20_000)]
    spec = Preprocess(input_size=32, interpolation="bilinear", crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    said = about.of_weights(names, "RepVGG-Tiny", spec)
    checkpoint.save(tmp_path / "many.ckpt", {"x": ms.Parameter(ms.Tensor([1.0]))}, said.entry)
    assert about.parse(checkpoint.read(tmp_path / "many.ckpt"), tmp_path) == said


@pytest.mark.parametrize("verb", ["eval", "export", "train"])
def test_classes_are_compared_by_name_not_by_number(image_folder, tmp_path, best, verb, capsys):
    """With the folders renamed, label 0 would be `zebra` in a bundle whose network means `across`."""
    from importlib import import_module

    for split in ("train", "val"):
        (image_folder / split / "across").rename(image_folder / split / "zebra")
    flags = {"data_url": image_folder, "pretrained": best, "device_target": "CPU", "name": "again", "batch_size": 16}
    flags |= {"save_dir": tmp_path / "runs", "arch": "RepVGG-Smoke"}
    flags |= {"bundle": tmp_path / "store" / "net" / "1"} if verb == "export" else {}
    words = [text for key, value in flags.items() for text in (f"--{key}", str(value))]
    assert import_module(f"training.{verb}").main(words) == 66
    error = capsys.readouterr().err
    assert f"{best} knows across and does not know, of {image_folder}" in error
    assert "zebra: " in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_what_neither_recipe_nor_flag_gives_comes_from_the_checkpoint(image_folder, tmp_path, best, capsys):
    from models.store import open_bundle
    from training import eval as evaluation
    from training import export

    pretrained = ["--pretrained", str(best), "--device_target", "CPU"]
    assert evaluation.main(pretrained) == 0
    found = capsys.readouterr().out
    top1 = json.loads(best.with_name("log.jsonl").read_text())["val_top1"]
    assert f"Top1 acc: {top1:.4f}" in found
    assert export.main([*pretrained, "--bundle", str(tmp_path / "store" / "net" / "1")]) == 0
    bundle = open_bundle(tmp_path / "store" / "net" / "1")
    assert bundle.labels == ("across", "down")
    assert bundle.manifest.preprocess.input_size == 16
    assert bundle.manifest.training.top1 == pytest.approx(top1)
    assert evaluation.main([*pretrained, "--image_size", "32"]) == 0
    assert f"image_size is 32; {best} was trained with 16" in capsys.readouterr().out
    assert evaluation.main([*pretrained, "--arch", "RepVGG-Tiny"]) == 66
    assert capsys.readouterr().err == f"error: {best} is a RepVGG-Smoke, not a RepVGG-Tiny\n"


def test_a_checkpoint_of_an_older_version_loads_with_one_line_that_says_what_it_lacks(
    image_folder, tmp_path, best, capsys
):
    from training import eval as evaluation
    from training.run.loop import train

    old = without_about(best, tmp_path / "old.ckpt")
    words = {**KEYS, "data_url": image_folder, "pretrained": old}
    capsys.readouterr()
    assert evaluation.main([text for key, value in words.items() for text in (f"--{key}", str(value))]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if str(old) in line]
    assert lines == [f"{old} does not name its classes (an older version wrote it): only their number is compared"]

    older = without_about(best.with_name("last.ckpt"), tmp_path / "runs" / "old" / "last.ckpt")
    train(config_of(tmp_path, image_folder, name="old", epochs=2))
    lines = [line for line in capsys.readouterr().out.splitlines() if "older version" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{older} does not hold its recipe")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"base_lr": 0.05}, "base_lr: 0.1 -> 0.05"),
        ({"lr_scheduler": "poly_lr"}, "lr_scheduler: cosine_lr -> poly_lr"),
        ({"weight_decay": 0.5, "epochs": 2}, "weight_decay: 0.0001 -> 0.5"),
        ({"image_size": 24}, "image_size: 16 -> 24"),
    ],
)
def test_a_change_of_what_a_run_means_is_refused_by_name_unless_it_is_wanted(
    image_folder, tmp_path, best, capsys, change, line
):
    from training.run.start import start

    kept = best.with_name("last.ckpt").read_bytes()
    with pytest.raises(CheckpointError, match="with another meaning") as refused:
        start(config_of(tmp_path, image_folder, **change))
    assert f"\n  {line}\n" in str(refused.value)
    assert "--resume_changed True" in str(refused.value)
    assert best.with_name("last.ckpt").read_bytes() == kept
    _, progress, *_ = start(config_of(tmp_path, image_folder, resume_changed=True, **change))
    assert progress.epoch == 1
    assert (progress.best_top1 > 0) == (change.keys() != {"image_size"}), "what was measured of other images is no best"
    assert f"resuming with a change of {line}" in capsys.readouterr().out


def test_other_classes_or_images_of_the_same_number_are_a_change(image_folder, tmp_path, best):
    from training.run.start import start

    first = next((image_folder / "train" / "down").glob("*"))
    first.rename(first.with_name("other.jpg"))
    with pytest.raises(CheckpointError) as refused:
        start(config_of(tmp_path, image_folder))
    assert "images of train: 64 images, digest" in str(refused.value)
    for split in ("train", "val"):
        (image_folder / split / "across").rename(image_folder / split / "zebra")
    with pytest.raises(CheckpointError, match="classes: across, down -> down, zebra"):
        start(config_of(tmp_path, image_folder))


def test_a_change_of_where_a_run_works_is_only_printed(finished, image_folder, tmp_path, best, capsys):
    from training.run.start import start

    _, progress, *_ = start(config_of(tmp_path, image_folder, num_parallel_workers=1))
    assert progress.epoch == 1
    assert progress.best_top1 > 0
    told = capsys.readouterr().out
    assert f"resuming with a change of data_url: {finished[0]} -> {image_folder}" in told
    assert "resuming with a change of num_parallel_workers: 2 -> 1" in told


def test_two_recipes_never_share_a_folder(tmp_path, image_folder, capsys):
    from training.config import parse

    folders = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"arch: RepVGG-Smoke\nsave_dir: {tmp_path}\n")
        folders.append(parse(["--config", str(path)], prog="test", description="")[0].run_dir)
    folders += [build({"dataset": title, "save_dir": tmp_path}, source="test").run_dir for title in ("a/b", "my c")]
    folders += [build({"name": "x", "save_dir": tmp_path}, source="test").run_dir]
    assert [folder.relative_to(tmp_path).as_posix() for folder in folders] == [
        "one",
        "two",
        "RepVGG-A0-a-b",
        "RepVGG-A0-my-c",
        "x",
    ]
    for name in ("a/b", "..", "a\\b"):
        with pytest.raises(ConfigError, match=r"name: .*must be the name of one folder"):
            build({"name": name}, source="test")


def test_a_run_of_an_older_version_is_pointed_at_and_not_silently_started_anew(tmp_path, image_folder, capsys):
    from training.run.resume import find_checkpoint

    older = tmp_path / "runs" / "RepVGG-Smoke" / "last.ckpt"
    older.parent.mkdir(parents=True)
    older.touch()
    assert find_checkpoint(config_of(tmp_path, image_folder)) is None
    assert f"{older} is not resumed: to resume it, give --name RepVGG-Smoke" in capsys.readouterr().out


def test_the_number_of_classes_follows_from_the_images_and_is_checked_where_it_is_given(image_folder, tmp_path):
    from training.errors import DataError
    from training.run.start import start

    run, *_ = start(config_of(tmp_path, image_folder, mix_up=0.2))
    assert run.network.classifier.weight.shape[0] == run.config.classes == 2
    with pytest.raises(DataError, match="has 2 classes, but num_classes is 3: give num_classes 2"):
        start(config_of(tmp_path, image_folder, num_classes=3))
    assert np.isfinite(run.rates).all()


def test_broken_images_are_skipped_on_request_listed_and_counted(image_folder, tmp_path, capsys):
    from training.errors import DataError
    from training.run.checkpoints import about, checkpoint
    from training.run.loop import train
    from training.run.start import start

    broken = [next((image_folder / split / "down").glob("*")) for split in ("train", "val")]
    for path in broken:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="2 broken images; repair or remove"):
        start(config_of(tmp_path, image_folder))
    best = train(config_of(tmp_path, image_folder, on_bad_image="skip", class_weights="balanced", epochs=1))
    lines = best.with_name("skipped.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [str(path) for path in broken]
    said = about.parse(checkpoint.read(best), best)
    assert said.images["skipped"] == "2 broken images"
    assert said.images["train"].startswith("63 images")
    assert "skipped 2 broken images, listed in" in capsys.readouterr().out
    for path in (image_folder / "train" / "down").glob("*"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="train: every image of down is broken"):
        start(config_of(tmp_path, image_folder, on_bad_image="skip"))
