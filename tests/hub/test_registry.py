"""`repvgg push` and `pull` of oci://, with a real registry (Debian's docker-registry)."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from oras.client import OrasClient

from hub import pull as pulling
from hub import push as pushing
from hub.errors import Unreachable, Unusable, Unverified, WrongRequest
from hub.progress import Progress
from models.store import Bundle
from service.cli import main

USER = "somebody:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"  # the password is "secret"


@contextmanager
def registry(folder: Path, *, login: bool = False) -> Iterator[str]:
    """HOST:PORT of a running registry that keeps its blobs in `folder`."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not here; scripts/ci_packages.sh installs it on Debian")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "users").write_text(USER + "\n")
    auth = {"auth": {"htpasswd": {"realm": "here", "path": str(folder / "users")}}} if login else {}
    storage = {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}}
    config = {"version": 0.1, "storage": storage, "http": {"addr": host}, "log": {"level": "error"}, **auth}
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        wait_for(f"http://{host}/v2/")
        yield host
    finally:
        process.terminate()
        process.wait(10)


def wait_for(address: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nobody answers at {address}")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as where:
        yield where


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path)}


@pytest.fixture
def pull(environ: dict[str, str], tmp_path: Path) -> Callable[[str], Bundle]:
    def run(source: str) -> Bundle:
        request = pulling.Request(source, tmp_path / "store")
        return pulling.pull(request, environ, Progress(io.StringIO()), pauses_s=(0, 0, 0))

    return run


def push(bundle: Path, target: str, environ: dict[str, str]) -> str:
    return pushing.push(str(bundle), target, environ, Progress(io.StringIO()), pauses_s=(0, 0, 0))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_pushed_is_pulled(
    host: str, tiny_bundle: Path, pull: Callable[[str], Bundle], environ: dict[str, str]
) -> None:
    where = push(tiny_bundle, f"oci://{host}/models/tiny:1", environ)
    for source in (f"oci://{host}/models/tiny:1", where):
        bundle = pull(source)
        assert files_of(bundle.folder) == files_of(tiny_bundle)
        shutil.rmtree(bundle.folder)


def test_a_server_needs_no_further_package_to_pull(
    host: str, tiny_bundle: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    push(tiny_bundle, f"oci://{host}/models/server:1", environ)
    script = (
        "import sys; sys.modules |= dict.fromkeys(('huggingface_hub', 'onnx', 'yaml'))\n"
        "from service.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", script, "pull", f"oci://{host}/models/server:1", "--store", str(tmp_path / "store")]
    done = subprocess.run(argv, env=os.environ | environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    argv[4] = "repvgg-a0"
    done = subprocess.run(argv, env=os.environ | environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 78
    assert ", which is not installed: pip install 'repvgg[pull]'" in done.stderr


def test_a_tag_is_never_pushed_again_and_equal_bundles_are_equal_images(
    host: str, tiny_bundle: Path, environ: dict[str, str]
) -> None:
    first = push(tiny_bundle, f"oci://{host}/models/twice:1", environ)
    with pytest.raises(WrongRequest, match="already exists"):
        push(tiny_bundle, f"oci://{host}/models/twice:1", environ)
    second = push(tiny_bundle, f"oci://{host}/models/twice:2", environ)
    assert first.partition("@")[2] == second.partition("@")[2]


def test_the_command_prints_the_digest(host: str, tiny_bundle: Path, environ: dict[str, str]) -> None:
    out = io.StringIO()
    assert main(["push", str(tiny_bundle), f"oci://{host}/models/cli:1"], environ, out, io.StringIO()) == 0
    assert out.getvalue().startswith(f"pushed oci://{host}/models/cli:1@sha256:")


def test_what_is_not_there_and_what_means_nothing(
    host: str, tiny_bundle: Path, pull: Callable[[str], Bundle], environ: dict[str, str]
) -> None:
    with pytest.raises(Unreachable, match="404"):
        pull(f"oci://{host}/models/none:1")
    with pytest.raises(Unreachable, match="404"):
        pull(f"oci://{host}/models/none@sha256:{'0' * 64}")
    for nonsense in (f"oci://{host}/models/tiny", f"oci://{host}/../tiny:1", "oci://tiny:1"):
        with pytest.raises(WrongRequest, match="is not an image"):
            pull(nonsense)
    with pytest.raises(WrongRequest, match="has no tag"):
        push(tiny_bundle, f"oci://{host}/models/tiny@sha256:{'0' * 64}", environ)
    with pytest.raises(Unusable, match="no model bundle at"):
        push(tiny_bundle / "nowhere", f"oci://{host}/models/nowhere:1", environ)
    with pytest.raises(Unreachable):
        pull("oci://127.0.0.1:9/models/tiny:1")


def test_a_layer_that_was_changed_in_the_registry_is_refused(
    tmp_path: Path, tiny_bundle: Path, pull: Callable[[str], Bundle], environ: dict[str, str]
) -> None:
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry") as where:
        push(tiny_bundle, f"oci://{where}/tiny:1", environ)
        for blob in (tmp_path / "registry").rglob("data"):
            content = blob.read_bytes()
            if b"models/labels.txt" in content[:512]:
                blob.write_bytes(content.replace(b"cat\n", b"dog\n"))
        with pytest.raises((Unverified, Unreachable)):
            pull(f"oci://{where}/tiny:1")
    assert not (tmp_path / "store").exists()


def test_oras_pulls_what_was_pushed(host: str, tiny_bundle: Path, environ: dict[str, str], tmp_path: Path) -> None:
    push(tiny_bundle, f"oci://{host}/models/for-oras:1", environ)
    client = OrasClient(insecure=True)
    archives = client.pull(f"{host}/models/for-oras:1", outdir=str(tmp_path / "archives"))
    assert len(archives) == len(files_of(tiny_bundle))
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
    assert files_of(tmp_path / "unpacked" / "models") == files_of(tiny_bundle)


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "files"])
def test_what_oras_pushed_is_pulled(
    host: str, tiny_bundle: Path, pull: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.chdir(tiny_bundle.parent if whole else tiny_bundle)
    files = [tiny_bundle.name] if whole else [path.name for path in tiny_bundle.iterdir()]
    client = OrasClient(insecure=True)
    client.push(f"{host}/models/by-oras:{whole}", files=files)
    assert files_of(pull(f"oci://{host}/models/by-oras:{whole}").folder) == files_of(tiny_bundle)


def test_a_title_outside_the_folder_is_refused(
    host: str, tiny_bundle: Path, pull: Callable[[str], Bundle], tmp_path: Path
) -> None:
    evil = {"evil": {"org.opencontainers.image.title": "../evil"}}
    (tmp_path / "evil").write_text("not a tar")
    (tmp_path / "annotations.json").write_text(json.dumps({str(tmp_path / "evil"): evil["evil"]}))
    OrasClient(insecure=True).push(
        f"{host}/models/evil:1",
        files=[str(tmp_path / "evil")],
        annotation_file=str(tmp_path / "annotations.json"),
        disable_path_validation=True,
    )
    with pytest.raises(Unusable, match=r"names '\.\./evil', which is outside its folder"):
        pull(f"oci://{host}/models/evil:1")


def test_what_killed_pulls_left_goes_a_day_later(
    host: str, tiny_bundle: Path, pull: Callable[[str], Bundle], environ: dict[str, str]
) -> None:
    push(tiny_bundle, f"oci://{host}/models/left:1", environ)
    layers = Path(environ["XDG_CACHE_HOME"]) / "repvgg" / "layers"
    for name, hours in (("unpacked-old", 30), ("unpacked-new", 1)):
        (layers / name).mkdir(parents=True)
        os.utime(layers / name, (time.time() - hours * 3600,) * 2)
    pull(f"oci://{host}/models/left:1")
    assert [path.name for path in layers.iterdir() if path.is_dir()] == ["unpacked-new"]


def test_a_login_is_asked_for_and_used(
    tmp_path: Path, tiny_bundle: Path, pull: Callable[[str], Bundle], environ: dict[str, str]
) -> None:
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry", login=True) as where:
        target = f"oci://{where}/tiny:1"
        with pytest.raises(Unreachable, match=f"docker login {where}"):
            push(tiny_bundle, target, environ)
        auth = base64.b64encode(b"somebody:secret").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {where: {"auth": auth}}}))
        push(tiny_bundle, target, environ)
        assert files_of(pull(target).folder) == files_of(tiny_bundle)
