"""Checks of the image files that need no build."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.runtime.server import LINGER_S
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
VERSION = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
IMAGES = yaml.safe_load((DOCKER / "images.yaml").read_text())["services"]
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def instructions(dockerfile: Path) -> list[str]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [re.sub(r"\s+", " ", line) for line in text.splitlines() if line]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_runs_as_a_numeric_user_and_installs_by_hash_only(dockerfile: Path) -> None:
    lines = instructions(dockerfile)
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 1000:1000"
    installs = re.findall(r"pip (?:--python \S+ )?install [^&]*", "\n".join(lines))
    assert installs
    assert all("--require-hashes" in install or "--no-index --no-deps" in install for install in installs)


@pytest.mark.parametrize("name", IMAGES)
def test_everything_an_image_is_built_from_exists(name: str) -> None:
    build = IMAGES[name]["build"]
    dockerfile = ROOT / build["dockerfile"]
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", dockerfile.read_text(), re.MULTILINE)) | build.get("args", {})
    assert set(build.get("args", {})) <= set(re.findall(r"^ARG (\w+)", dockerfile.read_text(), re.MULTILINE))
    if "LOCK" in arguments:
        assert (ROOT / "requirements" / f"{arguments['LOCK']}.lock").is_file()


def test_the_version_is_the_same_everywhere() -> None:
    for path in (*DOCKERFILES, DOCKER / "images.yaml", DOCKER / "compose.yaml"):
        text = path.read_text()
        found = re.findall(r"ARG VERSION=(\S+)|VERSION:-([^}]+)}|(?:repvgg-[\w-]+):(\d[\w.]*)", text)
        assert {version for versions in found for version in versions if version} == {VERSION}, path


@pytest.mark.parametrize("lock", ["serve-cuda", "train"])
def test_a_lock_file_has_the_development_pins_with_hashes_and_no_index(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    development = (ROOT / "requirements" / "dev.lock").read_text()
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    known = re.findall(r"^([\w.-]+)==([\w.]+)", development, re.MULTILINE)
    assert {pin for pin in pins if pin[0] in dict(known)} <= set(known)
    assert text.count("--hash=sha256:") >= len(pins) > 0
    assert "://" not in text


@pytest.mark.parametrize("name", COMPOSE)
def test_composed_services_are_read_only_unprivileged_and_local(name: str) -> None:
    service = COMPOSE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_a_composed_service_has_time_to_drain_and_memory_to_decode() -> None:
    settings = Settings()
    service = COMPOSE["service"]
    needed_s = settings.drain_seconds + settings.timeout_ms / 1000 + LINGER_S
    assert math.ceil(needed_s) < int(service["stop_grace_period"].removesuffix("s"))
    assert service["mem_limit"] == "1g"
    assert service["cpus"] == 2


def test_prometheus_and_grafana_find_each_other_and_the_service() -> None:
    prometheus = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())
    (job,) = prometheus["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.split(":")[0] in COMPOSE
    assert target.split(":")[1] in COMPOSE["service"]["ports"][0].split(":")
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"].removeprefix("http://").split(":")[0] in COMPOSE
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "repvgg.yaml").read_text())["providers"]
    mounts = {volume.split(":")[1] for volume in COMPOSE["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounts


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_the_configuration() -> None:
    command = ["promtool", "check", "config", DOCKER / "prometheus" / "prometheus.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def bill(*command: str) -> dict[str, Any]:
    done = subprocess.run([*command, ROOT / "scripts" / "sbom.py"], capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    assert isinstance(listed, dict)
    return listed


def test_the_bill_of_materials_is_deterministic_and_each_component_has_its_url() -> None:
    listed = bill(sys.executable)
    assert listed == bill(sys.executable)
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    uuid.UUID(listed["serialNumber"])
    purls = [component["purl"] for component in listed["components"]]
    assert len(purls) == len(set(purls))
    assert f"pkg:pypi/repvgg@{VERSION}" in purls
    assert all(purl.startswith(("pkg:pypi/", "pkg:deb/")) for purl in purls)
