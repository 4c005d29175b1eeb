"""The benchmark runs and prints what it promises; its figures are not tested."""

import pytest

pytestmark = pytest.mark.usefixtures("cpu")


def test_the_benchmark_measures_the_step_the_pipeline_and_both(image_folder, capsys):
    from benchmarks.training import main

    keys = {"arch": "RepVGG-Smoke", "num_classes": 2, "image_size": 16, "crop": "padded", "batch_size": 8}
    where = {"data_url": image_folder, "device_target": "CPU", "steps": 2, "repeats": 1}
    assert main([text for key, value in (keys | where).items() for text in (f"--{key}", str(value))]) == 0
    out = capsys.readouterr().out
    assert "batch 8, 2 steps, 1 repeats" in out
    assert [line.split(":")[0].strip() for line in out.splitlines() if "images/s (from" in line] == [
        "step",
        "pipeline",
        "kept",
        "both",
    ]
    assert "of a step) where images are read and decoded" in out
    assert "feeding costs" in out
