"""Signatures of bundles: ed25519 over the bytes of manifest.json, which holds the checksums of all other files.

1. `manifest.json.sig` next to it has one signature per line, in base64; one trusted key is enough;
2. keys are PEM files as `openssl genpkey -algorithm ed25519` writes them; a file may hold several public keys;
3. any change of the manifest, such as a new name or a fitted temperature, needs a new signature.

The `cryptography` package is imported when a key is read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import BundleError, KeyFileError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FILE = "manifest.json.sig"
MAX_BYTES = 1 << 16
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)


def sign(manifest: bytes, key: Path) -> bytes:
    """-> one line of a signature file. Raises KeyFileError and ImportError."""
    return base64.b64encode(_private(key).sign(manifest)) + b"\n"


def checker(key: Path) -> Callable[[Path, bytes], None]:
    """The check that `models.store.open_bundle` makes before it trusts a manifest: it raises BundleError unless one of
    the keys in the file has signed it. Raises KeyFileError and ImportError."""
    keys = _public(key)

    def check(folder: Path, manifest: bytes) -> None:
        signatures = read(folder)
        if not signatures:
            raise BundleError(f"{folder} is not signed: it has no {FILE}, and only bundles signed with {key} open")
        if not any(_is_by(one, manifest, signature) for one in keys for signature in signatures):
            raise BundleError(
                f"{folder} is not signed with {key}: its manifest has changed since, or another key was used"
            )

    return check


def read(folder: Path) -> list[bytes]:
    """The signatures of a bundle, none if it has no signature file. Raises BundleError."""
    path = folder / FILE
    try:
        if not path.is_file():
            return []
        if path.stat().st_size > MAX_BYTES:
            raise BundleError(f"{path} is larger than {MAX_BYTES} bytes: it is not a signature file")
        return [base64.b64decode(line, validate=True) for line in path.read_bytes().split()]
    except binascii.Error as error:
        raise BundleError(f"{path} is not valid: a signature is a line of base64") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _is_by(key: Ed25519PublicKey, manifest: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def _private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _content(path)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path} is not a private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} is not an ed25519 key: openssl genpkey -algorithm ed25519 makes one")
    return key


def _public(path: Path) -> Sequence[Ed25519PublicKey]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _content(path)
    try:
        keys = [load_pem_public_key(block) for block in _PUBLIC.findall(content)]
    except ValueError as error:
        raise KeyFileError(f"{path} holds a public key that cannot be read") from error
    if not keys:
        raise KeyFileError(f"{path} is not a public key in PEM: openssl pkey -pubout makes one from a private key")
    chosen = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if len(chosen) < len(keys):
        raise KeyFileError(f"{path} holds a key that is not ed25519")
    return chosen


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
