"""The training image and its Job: from images on a volume to a bundle that the service serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from PIL import Image

from models.store import find_bundle, open_bundle

if TYPE_CHECKING:
    from conftest import Container, Podman

ROOT = Path(__file__).parents[2]
JOB = ROOT / "k8s" / "jobs" / "train-cpu.yaml"
CLASSES = open_bundle(find_bundle("repvgg-small-tinyimagenet")).labels
# The Job's claims. The tests use their own volumes and never touch those of the user.
VOLUMES = {name: f"test-{name}" for name in ("repvgg-images", "repvgg-runs", "repvgg-models")}
IMAGES_PER_CLASS = {"train": 13, "val": 2}
TRAIN_LIMIT_S = 280.0


def draw(folder: Path) -> None:
    """Noise whose brightness encodes the class."""
    rng = np.random.default_rng(0)
    for split, count in IMAGES_PER_CLASS.items():
        for class_id, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(rng.normal(25 * class_id, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.jpg")


def pod_of(job: dict[str, object], image: str) -> dict[str, object]:
    """The pod that the Job would start, with the image and volumes under test, for two epochs: podman has no Jobs."""
    spec = job["spec"]["template"]["spec"]
    for volume in spec["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            claim["claimName"] = VOLUMES[claim["claimName"]]
    for container in (*spec["initContainers"], *spec["containers"]):
        container["image"] = image
        container["args"].append("--epochs=2")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": job["metadata"], "spec": spec}


@pytest.fixture
def volumes(podman: Podman) -> Iterator[dict[str, Path]]:
    """Volumes for the Job's claims, with drawn images -> their folders by the names in the Job."""
    names = VOLUMES.values()
    podman.run("volume", "rm", "--force", *names)  # left over from a killed run
    folders = {}
    for claim, name in VOLUMES.items():
        podman("volume", "create", name)
        folders[claim] = Path(podman("volume", "inspect", "--format={{.Mountpoint}}", name).strip())
    draw(folders["repvgg-images"])
    yield folders
    podman("volume", "rm", "--force", *names)


@pytest.mark.timeout(1800)
def test_the_job_trains_and_exports_a_bundle_that_the_service_serves_read_only(
    podman: Podman,
    training_image: str,
    volumes: dict[str, Path],
    start: Callable[..., Container],
    tmp_path: Path,
) -> None:
    pod = pod_of(yaml.safe_load(JOB.read_text()), training_image)
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(yaml.safe_dump(pod))
    try:
        # Returns when the init container, the training, has ended.
        podman("play", "kube", "--replace", manifest, limit_s=TRAIN_LIMIT_S)
        export = "repvgg-train-cpu-export"
        told = podman.run("logs", "--follow", export, limit_s=TRAIN_LIMIT_S)
        assert podman("wait", export).strip() == "0", told.stdout + told.stderr
    finally:
        podman("play", "kube", "--down", manifest)
    trained = open_bundle(volumes["repvgg-models"] / "repvgg-tiny-own" / "1").manifest
    assert trained.training.epochs == 2
    assert trained.training.git_commit == "0123abc"
    model = "--env=REPVGG_MODEL=/models/repvgg-tiny-own/1"
    container = start(f"--volume={VOLUMES['repvgg-models']}:/models:ro", model).wait_until_healthy()
    served = container.get("/models").json()
    assert (served["name"], served["version"]) == ("repvgg-tiny-own", "1")
    assert container.classify(ROOT / "models" / "samples" / "school_bus.jpg") in CLASSES
