"""The page at / and the documentation at /docs, in a real browser, against a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.runtime.listener import listen, url_of
from service.settings import Settings

if TYPE_CHECKING:
    from conftest import Server

LIMIT_MS = 60_000
# What the browser logs about an error response.
REFUSED = "Failed to load resource: the server responded with a status of"
DROP = """([name, type, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, {type}));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""
COPY = """(bytes) => navigator.clipboard.write(
  [new ClipboardItem({"image/png": new Blob([new Uint8Array(bytes)], {type: "image/png"})})])"""

expect.set_options(timeout=LIMIT_MS)


@pytest.fixture(scope="module")
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
        return self.page.locator(f".answer[data-state={state}]")

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
    return visit(server.url)


def test_a_chosen_image_shows_labels_stages_and_figures(home: Visit, jpeg_bytes: bytes) -> None:
    home.choose(("cat.jpg", jpeg_bytes))
    card = home.cards("answered")
    expect(card.locator("h3")).to_have_text("cat.jpg")
    expect(card.locator(".bars li")).to_have_count(5)
    expect(card.locator(".score").first).to_have_text(re.compile(r"^[\d.]+%$"))
    expect(card.locator(".legend")).to_have_text(
        re.compile(
            r"^read [\d.]+decode [\d.]+queue [\d.]+infer [\d.]+other [\d.]+network [\d.]+= [\d.]+ ms, batch of 1$"
        )
    )
    assert card.locator(".stage").evaluate_all("all => all.some(stage => stage.getBoundingClientRect().width > 2)")
    assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 48
    expect(home.page.locator("#announcement")).to_have_text(re.compile(r"^cat.jpg: \w+, [\d.]+%$"))
    expect(home.page.locator("#latency")).to_have_text(re.compile(r"^[\d.]+ ms, median [\d.]+$"))
    expect(home.page.locator("#throughput")).to_have_text(re.compile(r"^[\d.]+ images/s$"))
    assert home.console == []


def test_the_model_card_describes_the_served_model(home: Visit) -> None:
    expect(home.page.locator("#state")).to_have_text("ready")
    facts = home.page.locator("#model")
    for text in ("tiny, version 1", "32 \u00d7 32 pixels", "onnxruntime on CPUExecutionProvider", "fp32", "images/s"):
        expect(facts).to_contain_text(text)
    expect(home.page.locator("#classes")).to_have_text(
        re.compile("^Recognises 10 classes: airplane, .*, ship, truck.$")
    )
    expect(home.page.locator("#labels summary")).to_have_text("10 labels")
    home.page.locator("#labels summary").click()
    expect(home.page.locator("#labels li").first).to_have_text("airplane")
    expect(home.page.locator("#top-k")).to_have_attribute("max", "10")


def test_the_model_card_updates_after_a_reload(
    visit: Callable[..., Visit], start: Callable[..., Server], write_version: Callable[..., Path], jpeg_bytes: bytes
) -> None:
    first = write_version(1)
    server = start("--model", first).wait_until_serving()
    home = visit(server.url)
    expect(home.page.locator("#model")).to_contain_text("tiny, version 1")
    write_version(2)
    httpx.post(f"{server.url}/models/reload?version=2", timeout=120).raise_for_status()
    home.choose(("cat.jpg", jpeg_bytes))
    expect(home.page.locator("#model")).to_contain_text("tiny, version 2")


def test_an_image_can_be_pasted(visit: Callable[..., Visit], server: Server, png_bytes: bytes) -> None:
    home = visit(server.url, permissions=["clipboard-read", "clipboard-write"])
    home.page.evaluate(COPY, list(png_bytes))
    home.page.keyboard.press("Control+V")
    expect(home.cards("answered")).to_have_count(1)


def test_an_image_can_be_dropped_without_leaving_the_page(home: Visit, jpeg_bytes: bytes) -> None:
    home.page.evaluate(DROP, ["dropped.jpg", "image/jpeg", list(jpeg_bytes)])
    expect(home.cards("answered").locator("h3")).to_have_text("dropped.jpg")


def test_a_broken_image_shows_its_error_and_does_not_affect_others(home: Visit, jpeg_bytes: bytes) -> None:
    home.choose(("notes.txt", b"no image"), ("cat.jpg", jpeg_bytes))
    expect(home.cards("answered").locator("h3")).to_have_text("cat.jpg")
    expect(home.cards("error").locator(".words")).to_have_text(
        "The image cannot be decoded: not a readable image; formats: JPEG, PNG, WEBP, GIF, BMP, TIFF; "
        "this is text, perhaps the name of a file instead of its content"
    )
    expect(home.cards("error").get_by_role("button", name="Try again")).to_be_hidden()
    expect(home.cards("error").locator(".thumbnail")).to_have_text("txt")


def test_a_file_name_is_shown_as_text_and_no_other_script_runs(home: Visit, jpeg_bytes: bytes) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    home.choose((name, jpeg_bytes))
    expect(home.cards("answered").locator("h3")).to_have_text(name)
    with pytest.raises(Exception, match="TrustedHTML"):
        home.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b onclick=alert(1)>')")
    with pytest.raises(Exception, match="Failed to fetch"):
        home.page.evaluate("fetch('http://localhost:1/')")
    assert any("Content Security Policy" in text for text in home.console)
    home.console.clear()


def test_many_images_are_all_answered_in_order(home: Visit, draw_image: Callable[..., bytes]) -> None:
    home.page.locator("#top-k").evaluate("input => { input.value = 1 }")
    home.choose(*[(f"{seed}.jpg", draw_image(seed)) for seed in range(40)])
    expect(home.cards("answered")).to_have_count(40)
    assert home.page.locator("h3").all_text_contents() == [f"{seed}.jpg" for seed in range(40)]
    expect(home.page.locator(".bars li")).to_have_count(40)
    expect(home.page.locator("#announcement")).to_have_text("40 images done, 0 failed")
    points = home.page.locator("#latency-line polyline").get_attribute("points")
    assert points is not None
    assert len(points.split()) == 40


def test_the_page_works_by_keyboard(home: Visit, jpeg_bytes: bytes) -> None:
    page = home.page
    page.on(
        "filechooser", lambda _: None
    )  # suppresses the dialog from now on; the browser needs a moment to register it
    expect(page.locator("#state")).to_have_text("ready")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="API")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose images")).to_be_focused()
    assert page.locator("label[for=files]").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([{"name": "cat.jpg", "mimeType": "image/jpeg", "buffer": jpeg_bytes}])
    expect(home.cards("answered")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Labels per image")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Clear
    expect(page.locator(".answer")).to_have_count(0)
    expect(page.get_by_label("Choose images")).to_be_focused()


def test_overload_is_shown_and_retried_after_retry_after(
    visit: Callable[..., Visit], tiny_bundle: Path, draw_image: Callable[..., bytes]
) -> None:
    gate = threading.Event()
    engine = FakeEngine(10, 32, gate=gate)
    gate.set()
    app = create_app(Settings(model=str(tiny_bundle), max_queue_bytes=1), engine=engine)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", ws="none", log_config=None))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            home = visit(url_of(listener))
            expect(home.page.locator("#state")).to_have_text("ready")
            gate.clear()
            home.choose(*[(f"{seed}.jpg", draw_image(seed)) for seed in range(3)])
            expect(home.cards("waiting").locator(".words").first).to_have_text(
                re.compile(r"^The server is overloaded: .+ Retrying in \d+ s\.$")
            )
            expect(home.cards("sent")).to_have_count(1)
            gate.set()
            expect(home.cards("answered")).to_have_count(3)
        finally:
            gate.set()
            server.should_exit = True
            thread.join()


def test_an_unreachable_server_is_shown_and_can_be_retried(
    visit: Callable[..., Visit], start: Callable[..., Server], jpeg_bytes: bytes
) -> None:
    first = start().wait_until_serving()
    home = visit(first.url)
    expect(home.page.locator("#state")).to_have_text("ready")
    first.close()
    home.choose(("cat.jpg", jpeg_bytes))
    expect(home.cards("error").locator(".words")).to_contain_text(
        "The server cannot be reached: check that it is running"
    )
    expect(home.page.locator("#state")).to_have_text("not reachable")
    start("--port", first.port).wait_until_serving()
    home.page.get_by_role("button", name="Try again").click()
    expect(home.cards("answered")).to_have_count(1)
    expect(home.page.locator("#state")).to_have_text("ready")
    home.console = [text for text in home.console if "ERR_CONNECTION_REFUSED" not in text]


def test_a_key_is_requested_and_kept_for_this_tab_only(
    visit: Callable[..., Visit], start: Callable[..., Server], jpeg_bytes: bytes
) -> None:
    guarded = start(environ={"REPVGG_API_KEYS": "secret"}).wait_until_serving()
    home = visit(guarded.url)
    page, key = home.page, home.page.locator("#key-text")
    expect(key).to_be_focused()
    home.choose(("cat.jpg", jpeg_bytes))
    expect(home.cards("waiting")).to_have_count(1)
    key.fill("wrong")
    key.press("Enter")
    expect(page.locator("#key label")).to_have_text("The key was rejected: this key is not known")
    key.fill("secret")
    key.press("Enter")
    expect(home.cards("answered")).to_have_count(1)
    expect(page.locator("#key")).to_be_hidden()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.goto(f"{guarded.url}/docs")
    expect(page.locator("#classify .command").first).to_contain_text("-H 'X-API-Key: KEY'")


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(
    visit: Callable[..., Visit], server: Server, jpeg_bytes: bytes, path: str, scheme: str
) -> None:
    small = ViewportSize(width=360, height=740)
    home = visit(server.url + path, viewport=small, has_touch=True, is_mobile=True, color_scheme=scheme)
    if path == "/":
        expect(home.page.get_by_text("Take a photo")).to_be_visible()
        home.choose((60 * "long name " + ".jpg", jpeg_bytes))
        expect(home.cards("answered")).to_have_count(1)
    else:
        expect(home.page.locator(".operation").first).to_be_visible()
    assert home.page.evaluate("document.documentElement.scrollWidth") == small["width"]
    ground = home.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 3 * 128) == (scheme == "light")


def test_the_documentation_shows_every_operation_with_commands_that_work(
    visit: Callable[..., Visit], start: Callable[..., Server], jpeg_bytes: bytes, tmp_path: Path
) -> None:
    documentation = visit(f"{start().wait_until_serving().url}/docs")
    expect(documentation.page.locator("#classify")).to_be_visible()
    described = json.loads(documentation.page.evaluate("fetch('openapi.json').then(reply => reply.text())"))
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert sorted(documentation.page.locator(".operation").evaluate_all("all => all.map(one => one.id)")) == sorted(ids)
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(jpeg_bytes)
    commands = documentation.page.locator(".command pre").all_text_contents()
    assert len(commands) > len(ids)
    for command in commands:
        words = [*shlex.split(command), "--silent", "--show-error", "--fail-with-body"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert documentation.console == []


def test_the_page_says_which_images_are_stored(
    visit: Callable[..., Visit], start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start("--keep", tmp_path, "--keep-if", "score < 0.5").wait_until_serving()
    expect(visit(server.url).page.locator("#model")).to_contain_text("images whose answers are “score < 0.5”")
