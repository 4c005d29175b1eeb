"""`repvgg push --sign-key`, `pull --verify-key` and a server that insists."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub import pull as pulling
from hub import push as pushing
from hub.errors import Unverified, WrongRequest
from hub.progress import Progress
from models import signing
from models.store import Bundle, open_bundle
from service.cli import main
from tests.hub.conftest import A0, Pull
from tests.hub.hub_server import Repo, Server
from tests.hub.test_registry import files_of, registry
from tests.models.test_signing import make_keys, sign


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as where:
        yield where


@pytest.fixture
def place(tmp_path: Path, said: io.StringIO) -> tuple[dict[str, str], Progress]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path)}, Progress(said)


def pulled(source: str, tmp_path: Path, place: tuple[dict[str, str], Progress], **options: object) -> Bundle:
    return pulling.pull(pulling.Request(source, tmp_path / "store", **options), *place, pauses_s=())


def test_what_is_pushed_with_a_key_is_pulled_with_the_other(
    host: str, tiny_bundle: Path, keys: tuple[Path, Path], tmp_path: Path, place: tuple[dict[str, str], Progress]
) -> None:
    private, public = keys
    target = f"oci://{host}/signed:1"
    pushing.push(str(tiny_bundle), target, *place, pauses_s=(), sign_key=private)
    assert not (tiny_bundle / signing.FILE).exists()
    bundle = pulled(target, tmp_path, place, verify_key=public)
    open_bundle(bundle.folder, trust=signing.checker(public))
    signature = files_of(bundle.folder).pop(signing.FILE)
    assert files_of(bundle.folder) == files_of(tiny_bundle) | {signing.FILE: signature}


def test_an_unsigned_and_a_wrongly_signed_bundle_leave_nothing(
    host: str, tiny_bundle: Path, keys: tuple[Path, Path], tmp_path: Path, place: tuple[dict[str, str], Progress]
) -> None:
    other, _ = make_keys(tmp_path, "other")
    for name, key in (("unsigned", None), ("another", other)):
        target = f"oci://{host}/{name}:1"
        pushing.push(str(tiny_bundle), target, *place, pauses_s=(), sign_key=key)
        with pytest.raises(Unverified, match=rf"{target} is not signed"):
            pulled(target, tmp_path, place, verify_key=keys[1])
    assert not (tmp_path / "store").exists()


def test_two_may_sign(
    host: str, tiny_bundle: Path, keys: tuple[Path, Path], tmp_path: Path, place: tuple[dict[str, str], Progress]
) -> None:
    ours, our_public = make_keys(tmp_path, "ours")
    theirs = shutil.copytree(tiny_bundle, tmp_path / "tiny" / "1")
    sign(theirs, keys[0])
    pushing.push(str(theirs), f"oci://{host}/both:1", *place, pauses_s=(), sign_key=ours)
    pulled(f"oci://{host}/both:1", tmp_path, place, verify_key=keys[1])
    pulled(f"oci://{host}/both:1", tmp_path, place, verify_key=our_public)


def test_a_copy_under_another_name_is_not_signed_and_says_so(
    host: str,
    tiny_bundle: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    place: tuple[dict[str, str], Progress],
    said: io.StringIO,
) -> None:
    pushing.push(str(tiny_bundle), f"oci://{host}/renamed:1", *place, pauses_s=(), sign_key=keys[0])
    bundle = pulled(f"oci://{host}/renamed:1", tmp_path, place, name="mine", verify_key=keys[1])
    assert signing.read(bundle.folder) == []
    assert "the copy is not signed: its manifest has another name or version" in said.getvalue()


def test_a_signature_that_comes_later_is_added(
    host: str, tiny_bundle: Path, keys: tuple[Path, Path], tmp_path: Path, place: tuple[dict[str, str], Progress]
) -> None:
    pushing.push(str(tiny_bundle), f"oci://{host}/later:1", *place, pauses_s=())
    pushing.push(str(tiny_bundle), f"oci://{host}/later:signed", *place, pauses_s=(), sign_key=keys[0])
    bundle = pulled(f"oci://{host}/later:1", tmp_path, place)
    assert signing.read(bundle.folder) == []
    bundle = pulled(f"oci://{host}/later:signed", tmp_path, place, verify_key=keys[1])
    open_bundle(bundle.folder, trust=signing.checker(keys[1]))


def test_a_signed_bundle_goes_to_the_hub_and_back(
    server: Server, environ: dict[str, str], tiny_bundle: Path, keys: tuple[Path, Path], pull: Pull
) -> None:
    environ["HF_TOKEN"] = "hf_secret"
    server.repos["site/tiny"] = Repo({"README.md": b""}, token="hf_secret")
    silent = Progress(io.StringIO())
    pushing.push(str(tiny_bundle), "hf://site/tiny", environ, silent, pauses_s=(), sign_key=keys[0])
    bundle = pull("hf://site/tiny@1", verify_key=keys[1])
    open_bundle(bundle.folder, trust=signing.checker(keys[1]))


def test_weights_that_nobody_can_have_signed_are_not_fetched(
    server: Server, keys: tuple[Path, Path], pull: Pull
) -> None:
    with pytest.raises(Unverified, match=f"hf://{A0} is not a bundle"):
        pull(f"hf://{A0}", verify_key=keys[1])
    assert server.requests("model.safetensors") == []
    server.seen.clear()
    with pytest.raises(WrongRequest, match=r"--verify-key: .* is not a public key in PEM"):
        pull(f"hf://{A0}", verify_key=keys[0])
    assert server.seen == []


@pytest.mark.parametrize("verb", ["serve", "doctor", "inspect", "classify"])
def test_every_verb_that_opens_the_model_insists(verb: str, tiny_bundle: Path, keys: tuple[Path, Path]) -> None:
    argv = {
        "serve": ["--port", "0"],
        "doctor": [],
        "inspect": [str(tiny_bundle)],
        "classify": ["models/samples/cat.jpg"],
    }[verb]
    model = [] if verb == "inspect" else ["--model", str(tiny_bundle)]
    out, err = io.StringIO(), io.StringIO()
    code = main([verb, *argv, *model], {"REPVGG_VERIFY_KEY": str(keys[1])}, out, err)
    assert "is not signed: it has no manifest.json.sig" in out.getvalue() + err.getvalue()
    assert code == 66


def test_a_key_that_is_none_and_a_missing_package_are_wrong_settings(
    tiny_bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["serve", "--port", "0", "--model", str(tiny_bundle), "--verify-key"]
    err = io.StringIO()
    assert main([*argv, str(keys[0])], {}, io.StringIO(), err) == 78
    assert f"REPVGG_VERIFY_KEY: {keys[0]} is not a public key in PEM" in err.getvalue()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    assert main([*argv, str(keys[1])], {}, io.StringIO(), err) == 78
    assert "pip install 'repvgg[signing]'" in err.getvalue()
