"""Signatures of bundles; openssl is the other party."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from models import signing
from models.errors import BundleError, KeyFileError
from models.store import MANIFEST, open_bundle
from models.versions import write_version


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_keys(folder: Path, name: str = "key", algorithm: str = "ed25519") -> tuple[Path, Path]:
    """-> private, public."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    openssl("genpkey", "-algorithm", algorithm, "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny" / "1"))


def sign(bundle: Path, key: Path) -> None:
    (bundle / signing.FILE).write_bytes(signing.sign((bundle / MANIFEST).read_bytes(), key))


def test_a_signed_bundle_is_opened_and_any_other_is_not(bundle: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path)
    _, other = make_keys(tmp_path, "other")
    with pytest.raises(BundleError, match=r"is not signed: it has no manifest\.json\.sig"):
        open_bundle(bundle, trust=signing.checker(public))
    sign(bundle, private)
    open_bundle(bundle, trust=signing.checker(public))
    with pytest.raises(BundleError, match=r"is not signed with .*other\.pub"):
        open_bundle(bundle, trust=signing.checker(other))
    manifest = bundle / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"version": "1"', b'"version": "2"'))
    with pytest.raises(BundleError, match="its manifest has changed since, or another key was used"):
        open_bundle(bundle, trust=signing.checker(public))


def test_each_line_is_a_signature_and_a_file_may_hold_several_public_keys(bundle: Path, tmp_path: Path) -> None:
    (old, old_public), (new, new_public) = make_keys(tmp_path, "old"), make_keys(tmp_path, "new")
    sign(bundle, old)
    first = (bundle / signing.FILE).read_bytes()
    both = tmp_path / "both.pub"
    both.write_bytes(old_public.read_bytes() + new_public.read_bytes())
    open_bundle(bundle, trust=signing.checker(both))
    sign(bundle, new)
    with (bundle / signing.FILE).open("ab") as file:
        file.write(first)
    for public in (old_public, new_public, both):
        open_bundle(bundle, trust=signing.checker(public))


def test_openssl_makes_and_checks_the_same_signature(bundle: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path)
    raw = tmp_path / "raw.sig"
    openssl("pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", bundle / MANIFEST, "-out", raw)
    sign(bundle, private)
    assert base64.b64encode(raw.read_bytes()) == (bundle / signing.FILE).read_bytes().strip()
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", bundle / MANIFEST, "-sigfile", raw)


@pytest.mark.parametrize("content", [b"%%%\n", b"AAAA\n" * 20_000], ids=["no base64", "too long"])
def test_what_is_no_signature_is_named(bundle: Path, tmp_path: Path, content: bytes) -> None:
    _, public = make_keys(tmp_path)
    (bundle / signing.FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json\.sig is"):
        open_bundle(bundle, trust=signing.checker(public))


def test_what_is_no_key_is_named_and_not_shown(tmp_path: Path) -> None:
    private, public = make_keys(tmp_path)
    rsa, rsa_public = make_keys(tmp_path, "rsa", "RSA")
    locked = tmp_path / "locked.pem"
    openssl("pkey", "-in", private, "-aes256", "-passout", "pass:secret", "-out", locked)
    for path in (tmp_path / "none", public, rsa, locked):
        with pytest.raises(KeyFileError, match=str(path)) as caught:
            signing.sign(b"{}", path)
        assert "BEGIN" not in str(caught.value)
    for path in (tmp_path / "none", private, rsa_public):
        with pytest.raises(KeyFileError, match=str(path)):
            signing.checker(path)


def test_a_new_version_is_not_signed(bundle: Path, tmp_path: Path) -> None:
    private, _ = make_keys(tmp_path)
    sign(bundle, private)
    made = write_version(open_bundle(bundle), tmp_path / "tiny" / "2", temperature=2.0)
    assert signing.read(made.folder) == []
