"""A real browser that visits a real server."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

if TYPE_CHECKING:
    from conftest import Server

LIMIT_MS = 60_000
# What the browser logs about an error response.
REFUSED = "Failed to load resource: the server responded with a status of"

expect.set_options(timeout=LIMIT_MS)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is in PATH")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own rule
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


class Visit:
    """A browser page that records its requests and its console messages."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page: Page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(LIMIT_MS)
        self.console: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def cards(self, state: str) -> Locator:
        return self.page.locator(f".card[data-state={state}]")

    def ready(self) -> Visit:
        expect(self.page.locator("#state")).to_have_text("ready")
        return self

    def choose(self, *files: tuple[str, bytes]) -> None:
        self.page.set_input_files(
            "#files", [{"name": name, "mimeType": "", "buffer": content} for name, content in files]
        )

    def close(self) -> None:
        """Checks that the console shows only error responses and that no other host was contacted."""
        assert [text for text in self.console if not text.startswith(REFUSED)] == []
        origin = re.match(r"https?://[^/]+", self.page.url)
        assert origin is not None
        assert [url for url in self.requests if not url.startswith((origin[0], "blob:" + origin[0]))] == []
        self.page.context.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """`visit(url, **options)` -> a Visit in its own browser context."""
    visits: list[Visit] = []

    def open_page(url: str, **options: Any) -> Visit:
        visits.append(Visit(browser, **options))
        visits[-1].page.goto(url)
        return visits[-1]

    yield open_page
    for each in visits:
        each.close()


@pytest.fixture
def home(visit: Callable[..., Visit], server: Server) -> Visit:
    """The page of a model that neither explains nor doubts."""
    return visit(server.url)


@pytest.fixture
def doubting(visit: Callable[..., Visit], doubting_server: Server) -> Visit:
    """The page of a model that explains its answers and has a threshold for them."""
    return visit(doubting_server.url).ready()
