"""The documentation at /docs, in a real browser, against a real server."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from playwright.sync_api import expect

if TYPE_CHECKING:
    from conftest import Server, Visit


def test_the_documentation_shows_every_operation_with_commands_that_work(
    visit: Callable[..., Visit], start: Callable[..., Server], jpeg_bytes: bytes, tmp_path: Path
) -> None:
    server = start("--feedback", 10).wait_until_serving()
    documentation = visit(f"{server.url}/docs")
    expect(documentation.page.locator("#classify")).to_be_visible()
    described = json.loads(documentation.page.evaluate("fetch('openapi.json').then(reply => reply.text())"))
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert sorted(documentation.page.locator(".operation").evaluate_all("all => all.map(one => one.id)")) == sorted(ids)
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(jpeg_bytes)
    # The answer that the example of feedback is about.
    body = described["paths"]["/feedback"]["post"]["requestBody"]["content"]["application/json"]
    answered = {"X-Request-ID": body["example"]["request_id"]}
    httpx.post(f"{server.url}/classify", content=jpeg_bytes, headers=answered | {"content-type": "image/jpeg"})
    commands = documentation.page.locator(".command pre").all_text_contents()
    assert len(commands) > len(ids)
    for command in commands:
        words = [*shlex.split(command), "--silent", "--show-error", "--fail-with-body"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert documentation.console == []
