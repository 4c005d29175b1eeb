import re

import pytest

from training.config import build

pytestmark = pytest.mark.usefixtures("cpu")


def test_a_dry_run_estimates_the_cost_and_writes_nothing(image_folder, tmp_path):
    from training.run import resume
    from training.run.assembly import assemble
    from training.run.dry_run import estimate

    keys = {"arch": "RepVGG-Smoke", "num_classes": 2, "image_size": 16, "crop": "padded", "crop_pct": 1.0}
    keys |= {"data_url": str(image_folder), "save_dir": str(tmp_path / "runs"), "device_target": "CPU"}
    config = build(keys | {"batch_size": 24, "epochs": 5, "eval_interval": 2, "with_ema": True}, source="test")
    told = estimate(config)
    assert not (tmp_path / "runs").exists()
    assert "steps: 10, 5 epochs of 2 with 24 images each" in told
    assert "in 3 evaluations" in told

    def number(pattern):
        return float(re.search(pattern, told)[1])

    step_s, hours = number(r"one step: ([\d.]+) s"), number(r"whole run: ([\d.]+) h")
    compilation_s = number(r"compilation: ([\d.]+) s")
    assert compilation_s > step_s > 0
    assert hours >= (10 * step_s + compilation_s) / 3600 - 0.01
    assert 0.1 < number(r"memory of this process: ([\d.]+) GB") < 100
    path = tmp_path / "last.ckpt"
    resume.save(path, assemble(config, 2).parameters, resume.Progress(), config, 2)
    assert number(r"last\.ckpt ([\d.]+) MB") == pytest.approx(path.stat().st_size / 1e6, rel=0.05)


def test_a_dry_run_names_every_broken_image_as_the_start_does(image_folder, tmp_path):
    from training.errors import DataError
    from training.run.dry_run import estimate

    for split in ("train", "val"):
        next((image_folder / split).glob("*/*")).write_bytes(b"no image")
    keys = {"arch": "RepVGG-Smoke", "num_classes": 2, "image_size": 16, "batch_size": 24, "device_target": "CPU"}
    keys |= {"data_url": str(image_folder), "save_dir": str(tmp_path / "runs")}
    with pytest.raises(DataError, match=r"^2 broken images"):
        estimate(build(keys, source="test"))


def test_every_size_of_image_is_timed(image_folder, tmp_path):
    from training.run.dry_run import estimate

    keys = {"arch": "RepVGG-Smoke", "num_classes": 2, "image_size": 16, "batch_size": 32, "device_target": "CPU"}
    keys |= {"data_url": str(image_folder), "save_dir": str(tmp_path / "runs"), "image_sizes": "0:12,8:16"}
    told = estimate(build(keys | {"epochs": 10_000}, source="test"))
    steps = re.findall(r"one step with images of (\d+) pixels: ([\d.]+) s", told)
    assert [size for size, _ in steps] == ["12", "16"]
    hours = float(re.search(r"of which ([\d.]+) h training", told)[1])
    rounding = 20_000 * 0.0005 / 3600 + 0.005
    assert hours == pytest.approx((16 * float(steps[0][1]) + 19_984 * float(steps[1][1])) / 3600, abs=rounding)
