"""The page at /: images in, answers out, and what goes wrong, in a real browser, against a real server."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from playwright.sync_api import expect

from models.manifest import Confidence
from models.store import open_bundle
from models.versions import write_version as add_confidence
from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.runtime.listener import listen, url_of
from service.settings import Settings

if TYPE_CHECKING:
    from conftest import Server, Visit

DROP = """([name, type, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, {type}));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""
COPY = """(bytes) => navigator.clipboard.write(
  [new ClipboardItem({"image/png": new Blob([new Uint8Array(bytes)], {type: "image/png"})})])"""


def test_a_chosen_image_shows_labels_stages_and_figures(home: Visit, jpeg_bytes: bytes) -> None:
    home.choose(("cat.jpg", jpeg_bytes))
    card = home.cards("answered")
    expect(card.locator(".file")).to_have_text("cat.jpg")
    expect(card.locator(".bars li")).to_have_count(5)
    expect(card.locator(".bars .score").first).to_have_text(re.compile(r"^[\d.]+%$"))
    expect(card.locator(".timing summary")).to_have_text(re.compile(r"^[\d.]+ ms, onnxruntime fp32$"))
    expect(card.locator(".legend")).to_be_hidden()  # the answer comes first
    card.locator(".timing summary").click()
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


def test_a_model_that_can_do_less_replaces_one_that_could(
    visit: Callable[..., Visit],
    start: Callable[..., Server],
    write_version: Callable[..., Path],
    confidence: Confidence,
    jpeg_bytes: bytes,
) -> None:
    """The page still asks for sets of labels, which the new one refuses."""
    first = add_confidence(open_bundle(write_version(1)), write_version(3).parent / "2", confidence=confidence)
    server = start("--model", first.folder).wait_until_serving()
    home = visit(server.url).ready()
    httpx.post(f"{server.url}/models/reload?version=3", timeout=120).raise_for_status()
    home.choose(("cat.jpg", jpeg_bytes))
    expect(home.cards("answered")).to_have_count(1)
    assert ["coverage" in url for url in home.requests if "/classify" in url] == [True, False]


def test_an_image_can_be_pasted(visit: Callable[..., Visit], server: Server, png_bytes: bytes) -> None:
    home = visit(server.url, permissions=["clipboard-read", "clipboard-write"])
    home.page.evaluate(COPY, list(png_bytes))
    home.page.keyboard.press("Control+V")
    expect(home.cards("answered")).to_have_count(1)


def test_an_image_can_be_dropped_without_leaving_the_page(home: Visit, jpeg_bytes: bytes) -> None:
    home.page.evaluate(DROP, ["dropped.jpg", "image/jpeg", list(jpeg_bytes)])
    expect(home.cards("answered").locator(".file")).to_have_text("dropped.jpg")


def test_a_broken_image_shows_its_error_and_does_not_affect_others(home: Visit, jpeg_bytes: bytes) -> None:
    home.choose(("notes.txt", b"no image"), ("cat.jpg", jpeg_bytes))
    expect(home.cards("answered").locator(".file")).to_have_text("cat.jpg")
    expect(home.cards("error").locator(".words")).to_have_text(
        "The image cannot be decoded: not a readable image; formats: JPEG, PNG, WEBP, GIF, BMP, TIFF; "
        "this is text, perhaps the name of a file instead of its content"
    )
    expect(home.cards("error").get_by_role("button", name="Try again")).to_be_hidden()
    expect(home.cards("error").locator(".none")).to_have_text("txt")


def test_a_file_name_is_shown_as_text_and_no_other_script_runs(home: Visit, jpeg_bytes: bytes) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    home.choose((name, jpeg_bytes))
    expect(home.cards("answered").locator(".file")).to_have_text(name)
    with pytest.raises(Exception, match="TrustedHTML"):
        home.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b onclick=alert(1)>')")
    with pytest.raises(Exception, match="Failed to fetch"):
        home.page.evaluate("fetch('http://localhost:1/')")
    assert any("Content Security Policy" in text for text in home.console)
    home.console.clear()


def test_many_images_are_all_answered_in_order(home: Visit, draw_image: Callable[..., bytes]) -> None:
    home.choose(*[(f"{seed}.jpg", draw_image(seed)) for seed in range(40)])
    expect(home.cards("answered")).to_have_count(40)
    assert home.page.locator(".file").all_text_contents() == [f"{seed}.jpg" for seed in range(40)]
    expect(home.page.locator("#announcement")).to_have_text("40 images done, 0 failed")
    points = home.page.locator("#latency-line polyline").get_attribute("points")
    assert points is not None
    assert len(points.split()) == 40


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
    home.console = [text for text in home.console if "net::ERR_CONNECTION_RE" not in text]  # refused, or reset


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


def test_the_page_says_which_images_are_stored(
    visit: Callable[..., Visit], start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start("--keep", tmp_path, "--keep-if", "score < 0.5").wait_until_serving()
    expect(visit(server.url).page.locator("#model")).to_contain_text("images whose answers are “score < 0.5”")
