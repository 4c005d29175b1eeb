"""The target of a load, checked before the load begins: the URL, the images, and that the service answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from models.errors import ImageError
from models.preprocess import open_image
from service.classify.files import find_images
from service.errors import AddressUnavailable, ConfigError, UsageError
from service.load.figures import REFUSALS
from service.load.generator import ask_once, code_of, problem_of
from service.load.wire import Address, Broken, PreparedRequest, Reply
from service.settings import Settings, variable_name

MOST_BYTES = 1 << 30


def read_url(url: str, timeout_ms: int) -> tuple[Address, str]:
    """-> the address, and the request target including the deadline. Raises UsageError."""
    try:
        address = Address.of(url)
    except ValueError as error:
        raise UsageError(f"--url: {error}") from error
    path = urlsplit(url).path
    return address, f"{path if path.strip('/') else '/classify'}?timeout_ms={timeout_ms}"


def read_images(paths: Sequence[Path], max_pixels: int) -> dict[Path, bytes]:
    """Reads all images into memory. Raises UsageError for a file that is not an image."""
    images: dict[Path, bytes] = {}
    size = 0
    for path in find_images(paths):
        try:
            images[path] = path.read_bytes()
            open_image(images[path], max_pixels)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        except ImageError as error:
            raise UsageError(f"{path}: {error.detail}") from error
        size += len(images[path])
        if size > MOST_BYTES:
            raise UsageError(
                f"the images are larger than {MOST_BYTES >> 20} MiB in total; a few hundred images are enough"
            )
    return images


def prepare(address: Address, target: str, images: Sequence[bytes], settings: Settings) -> list[PreparedRequest]:
    """One image per request, with the first API key if there is one."""
    headers = [("Content-Type", "application/octet-stream")]
    headers += [("X-API-Key", key.get_secret_value()) for key in settings.api_keys[:1]]
    return [PreparedRequest(address, target, headers, image) for image in images]


def check_server(url: str, address: Address, request: PreparedRequest, give_up_after_s: float) -> str | None:
    """Send one request before the load -> the served model, `None` if the server is too busy to answer.

    Raises AddressUnavailable, ConfigError if the API key is rejected, UsageError if it is another kind of service.
    """
    try:
        reply = ask_once(address, request, give_up_after_s)
    except Broken as error:
        raise AddressUnavailable(f"no server answers at {url}: {error}") from error
    code = code_of(reply)
    message = f"{url} answers {reply.status} {code}: {problem_of(reply).get('detail', 'this is not a repvgg service')}"
    if code in ("not_ready", "draining"):
        raise AddressUnavailable(message)
    if reply.status == 401:
        raise ConfigError(f"{message}; set {variable_name('api_keys')}")
    if code and reply.status not in REFUSALS:
        raise UsageError(message)
    return None if code else served_by(url, reply)


def served_by(url: str, reply: Reply) -> str:
    """`name/version, engine precision`. Raises UsageError for an answer in another format."""
    try:
        model = json.loads(reply.body)["model"]
        return f"{model['name']}/{model['version']}, {model['engine']} {model['precision']}"
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{url} answers, but not like a repvgg service") from error
