"""The promises of service.api.page; what the page does in a browser is in tests/e2e/page/test_page.py."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from models.store import STORE
from service.api.page import FILES, PAGES, SAMPLES

if TYPE_CHECKING:
    from starlette.testclient import TestClient

MOST_BYTES = 60_000
# WCAG 2.2, 1.4.3 for text and 1.4.11 for graphics.
TEXT, GRAPHICS = 4.5, 3.0


@pytest.mark.parametrize("path", sorted(FILES))
def test_every_file_is_served_under_a_policy_without_exceptions(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 200
    assert reply.content == FILES[path].content
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert (reply.headers["x-content-type-options"], reply.headers["cache-control"]) == ("nosniff", "no-cache")
    assert client.head(path).status_code == 200


def test_each_file_has_its_media_type(client: TestClient) -> None:
    paths = [*PAGES, "/page/style.css", "/page/try/main.js", "/page/icon.svg"]
    assert [client.get(path).headers["content-type"].partition(";")[0] for path in paths] == [
        *("text/html", "text/html", "text/css", "text/javascript", "image/svg+xml")
    ]


def test_a_browser_that_already_has_a_file_gets_304(client: TestClient) -> None:
    etag = client.get("/").headers["etag"]
    for known in (etag, f'W/{etag}, "other"'):
        reply = client.get("/", headers={"If-None-Match": known})
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", etag)
    assert client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/docs").headers["etag"] != etag


def test_the_sample_pictures_are_served_to_be_cached(client: TestClient) -> None:
    pictures = STORE.parent / "samples"
    assert sorted(SAMPLES) == [f"/page/samples/{picture.name}" for picture in sorted(pictures.iterdir())]
    for path in SAMPLES:
        reply = client.get(path)
        assert (reply.status_code, reply.content) == (200, (pictures / path.rpartition("/")[2]).read_bytes())
        assert reply.headers["content-type"] == f"image/{'png' if path.endswith('.png') else 'jpeg'}"
        assert reply.headers["cache-control"] == "public, max-age=86400"
        assert client.get(path, headers={"If-None-Match": reply.headers["etag"]}).status_code == 304


def test_samples_are_read_when_they_are_asked_for() -> None:
    program = (
        "import sys; opened = [];"
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0])));"
        "from service.api import page; print(sum('models/samples' in name for name in opened), len(page.SAMPLES))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "12"]


def test_the_page_offers_samples_that_there_are() -> None:
    named = re.findall(r'"(\w+\.(?:jpg|png))"', FILES["/page/try/samples.js"].content.decode())
    assert sorted(f"/page/samples/{name}" for name in named) == sorted(SAMPLES)


@pytest.mark.parametrize(
    "path",
    [
        *("/page/other.js", "/page/index.html", "/page/..%2fapp.py", "/page/", "/redoc", "/page/try", "/page/try/"),
        *("/page/samples/", "/page/samples/other.jpg", "/page/samples/..%2f__init__.py", "/page/samples/../store.py"),
    ],
)
def test_other_paths_are_not_found(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


def test_the_files_need_no_key_but_their_requests_do(serve: Callable[..., TestClient]) -> None:
    guarded = serve(api_keys=("secret",))
    assert {guarded.get(path).status_code for path in (*FILES, *SAMPLES)} == {200}
    closed = "/models", "/openapi.json", "/page/other.js", "/page/samples/other.jpg"
    assert {guarded.get(path).status_code for path in closed} == {401}
    assert guarded.post("/").status_code == 401


def test_each_page_is_small() -> None:
    for other in ("docs", "try"):
        loaded = [path for path in FILES if not path.startswith((f"/page/{other}", f"/{other}"))]
        assert sum(len(FILES[path].content) for path in loaded if path != "/" or other == "docs") < MOST_BYTES


def test_the_files_name_no_other_host() -> None:
    names = re.findall(r"https?://[^\s\"'<>]+", "".join(file.content.decode() for file in FILES.values()))
    assert set(names) == {"http://www.w3.org/2000/svg"}


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark(scheme: int) -> None:
    blocks = re.findall(r":root {([^}]*)}", FILES["/page/style.css"].content.decode())
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", blocks[scheme]))
    for ground in ("ground", "surface", "sunken"):
        for ink in ("text", "muted", "accent", "error"):
            assert contrast(colour[ink], colour[ground]) >= TEXT, (ink, ground)
    assert contrast(colour["on-accent"], colour["accent"]) >= TEXT
    for mark in ("accent", "good"):
        assert contrast(colour[mark], colour["surface"]) >= GRAPHICS, mark
