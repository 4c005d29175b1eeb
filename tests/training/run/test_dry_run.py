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
