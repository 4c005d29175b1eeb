"""The answer first, how sure it is, and why: in a real browser, against a real server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import Locator, expect

from models.store import STORE

if TYPE_CHECKING:
    from conftest import Server, Visit

SAMPLES = STORE.parent / "samples"
CAT = (SAMPLES / "cat.jpg").read_bytes()
# Where the heat map is, in pixels of the photo.
HEAT = """canvas => {
  const picture = canvas.closest(".picture");
  const [box, whole] = [canvas, picture].map(element => element.getBoundingClientRect());
  const scale = picture.querySelector("img").naturalWidth / whole.width;
  const [left, top, right, bottom] = [box.left, box.top, box.right, box.bottom].map(place => place * scale);
  return [left - whole.left * scale, top - whole.top * scale, right - whole.left * scale, bottom - whole.top * scale];
}"""
# Red, green, blue and alpha of each cell.
PIXELS = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  return [...copy.getImageData(0, 0, canvas.width, canvas.height).data];
}"""
# The bytes that each request for a file took over the network.
SENT = "name => performance.getEntriesByName(new URL(name, location)).map(entry => entry.transferSize)"
SHOWN = re.compile(r"\bshown\b")


def api(server: Server, image: bytes, query: str = "") -> Any:
    """What the service says of an image."""
    reply = httpx.post(f"{server.url}/classify?{query}", content=image, headers={"content-type": "image/jpeg"})
    return reply.raise_for_status().json()["results"][0]


def asked(visit: Visit) -> list[str]:
    return [url.partition("?")[2] for url in visit.requests if "/classify?" in url]


def open_first(visit: Visit, image: bytes, name: str = "cat.jpg") -> Locator:
    visit.choose((name, image))
    card = visit.cards("answered")
    expect(card.locator(".why")).to_be_visible()
    return card


def test_sample_pictures_are_offered_until_there_is_a_photo(doubting: Visit) -> None:
    samples = doubting.page.locator("#samples")
    expect(samples.get_by_role("button")).to_have_text(["cat", "dog"])  # those of which this model has a label
    samples.get_by_role("button", name="cat").click()
    expect(doubting.cards("answered").locator(".answer")).to_have_text("cat")
    expect(doubting.cards("answered").locator(".file")).to_have_text("cat.jpg")
    expect(samples).to_be_hidden()
    doubting.page.get_by_role("button", name="Clear").click()
    expect(samples).to_be_visible()


def test_a_model_that_knows_no_sample_offers_some_and_says_so(visit: Callable[..., Visit], wide_server: Server) -> None:
    samples = visit(wide_server.url).ready().page.locator("#samples")
    expect(samples.locator("p")).to_contain_text("this model may have no label for it")
    expect(samples.get_by_role("button")).to_have_count(8)
    assert samples.locator("img").evaluate_all("all => Promise.all(all.map(image => image.decode()))")


def test_a_sample_is_fetched_once(doubting: Visit) -> None:
    doubting.page.locator("#samples").get_by_role("button", name="cat").click()
    expect(doubting.cards("answered")).to_have_count(1)
    assert doubting.page.evaluate(SENT, "page/samples/cat.jpg")[1:] == [0], "the second time it comes from the cache"


def test_an_answer_below_the_threshold_is_not_sure(doubting: Visit, doubting_server: Server, jpeg_bytes: bytes) -> None:
    result = api(doubting_server, jpeg_bytes, "coverage=0.9")
    best, second = (one["label"] for one in result["predictions"][:2])
    assert result["confident"] is False
    doubting.choose(("drawing.jpg", jpeg_bytes))
    card = doubting.cards("answered")
    expect(card.locator(".answer")).to_have_text(f"Not sure: {best} or {second}?")
    expect(card.locator(".words")).to_have_text(
        f"With 90% probability one of these: {', '.join(result['set']['labels'])}."
    )
    expect(doubting.page.locator("#announcement")).to_contain_text(f"drawing.jpg: Not sure: {best} or {second}?")
    expect(doubting.page.locator("#summary")).to_have_text("1 photo, 1 not sure")


def test_only_labels_that_come_near_the_best_are_named(doubting: Visit, doubting_server: Server) -> None:
    mushroom = (SAMPLES / "mushroom.jpg").read_bytes()
    best, second = api(doubting_server, mushroom)["predictions"][:2]
    assert second["score"] < best["score"] / 3
    doubting.choose(("mushroom.jpg", mushroom))
    expect(doubting.cards("answered").locator(".answer")).to_have_text(f"Not sure: {best['label']}?")


def test_a_sure_answer_is_its_label(doubting: Visit, doubting_server: Server) -> None:
    assert api(doubting_server, CAT)["confident"] is True
    doubting.choose(("cat.jpg", CAT))
    card = doubting.cards("answered")
    expect(card.locator(".answer")).to_have_text("cat")
    expect(card.locator(".words")).to_be_hidden()
    sizes = {
        name: card.locator(selector).evaluate("one => parseFloat(getComputedStyle(one).fontSize)")
        for name, selector in {"answer": ".answer", "milliseconds": ".timing summary"}.items()
    }
    assert sizes["answer"] > 1.5 * sizes["milliseconds"]


def test_a_bundle_without_a_threshold_makes_no_claim(home: Visit, server: Server, jpeg_bytes: bytes) -> None:
    home.ready().choose(("cat.jpg", jpeg_bytes))
    card = home.cards("answered")
    expect(card.locator(".answer")).to_have_text(api(server, jpeg_bytes)["predictions"][0]["label"])
    expect(card).not_to_contain_text("sure")
    assert all("coverage" not in query for query in asked(home))


def test_the_heat_map_of_a_label_lies_on_what_the_model_saw(doubting: Visit, doubting_server: Server) -> None:
    """The photo is stored lying on its side, and wider than high: orientation and crop both count."""
    card = open_first(doubting, CAT)
    labels = card.get_by_role("listitem").get_by_role("button")
    for place, one in enumerate(api(doubting_server, CAT, "explain=cam&top_k=2")["predictions"]):
        labels.nth(place).hover()
        expect(card.locator(".heat")).to_have_class(SHOWN)
        expect(card.locator(".for")).to_have_text(f"for {one['label']}")
        assert card.locator(".heat").evaluate(HEAT) == pytest.approx(one["cam"]["box"], abs=1.5)
        cells = [cell for row in one["cam"]["grid"] for cell in row]
        most = max(map(abs, cells))
        pixels = card.locator(".heat").evaluate(PIXELS)
        for i, cell in enumerate(cells):
            red, _, blue, alpha = pixels[4 * i : 4 * i + 4]
            assert alpha == pytest.approx(190 * abs(cell) / most, abs=1.5)
            assert alpha < 10 or (red > blue) == (cell > 0)
    doubting.page.mouse.move(0, 0)
    expect(card.locator(".heat")).not_to_have_class(SHOWN)
    expect(card.locator(".meaning")).to_have_text("Point at a label to see the evidence for it.", use_inner_text=True)
    expect(card.locator(".seen")).to_be_visible()
    expect(card.get_by_text("Framed: what the model saw.")).to_be_visible()


def test_a_square_photo_needs_no_frame(doubting: Visit, draw_image: Callable[..., bytes]) -> None:
    card = open_first(doubting, draw_image(0, size=(64, 64)))
    expect(card.locator(".crop")).to_be_hidden()
    assert card.locator(".seen").evaluate("one => getComputedStyle(one).boxShadow") == "none"


def test_the_heat_map_is_there_for_the_keyboard(doubting: Visit) -> None:
    card = open_first(doubting, CAT)
    heat, labels = card.locator(".heat"), card.locator("button.guess")
    card.locator(".open").focus()
    doubting.page.keyboard.press("Tab")
    expect(labels.first).to_be_focused()
    expect(heat).to_have_class(SHOWN)
    doubting.page.keyboard.press("Enter")  # keeps it
    doubting.page.keyboard.press("Tab")
    expect(card.locator(".for")).to_have_text(f"for {labels.nth(1).locator('.label').text_content()}")
    doubting.page.keyboard.press("Shift+Tab")
    doubting.page.keyboard.press("Shift+Tab")
    expect(heat).to_have_class(SHOWN)
    expect(labels.first).to_have_attribute("aria-pressed", "true")


def test_the_heat_map_is_there_for_a_finger(visit: Callable[..., Visit], doubting_server: Server) -> None:
    phone = visit(doubting_server.url, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}).ready()
    card = open_first(phone, CAT)
    expect(card.locator(".meaning")).to_contain_text("Tap a label to see the evidence for it.")
    second = card.locator("button.guess").nth(1)
    second.tap()
    expect(card.locator(".heat")).to_have_class(SHOWN)
    second.tap()
    expect(card.locator(".heat")).not_to_have_class(SHOWN)


def test_a_model_that_explains_nothing_has_no_heat_map_and_no_frame(home: Visit, jpeg_bytes: bytes) -> None:
    home.ready().choose(("cat.jpg", jpeg_bytes))
    card = home.cards("answered")
    for absent in (".why", ".seen", "button.guess"):
        expect(card.locator(absent).first).to_be_hidden()
    assert asked(home) == ["top_k=10"]


def test_why_is_asked_for_with_the_only_photo_and_otherwise_when_it_is_opened(
    doubting: Visit, draw_image: Callable[..., bytes]
) -> None:
    open_first(doubting, CAT)
    assert [("explain=cam" in query) for query in asked(doubting)] == [True]
    doubting.choose(*[(f"{seed}.jpg", draw_image(seed)) for seed in range(3)])
    expect(doubting.cards("answered")).to_have_count(4)
    assert [("explain=cam" in query) for query in asked(doubting)] == [True, False, False, False]
    doubting.page.locator(".open").nth(1).click()
    opened = doubting.page.locator(".card.opened")
    expect(opened.locator(".file")).to_have_text("1.jpg")
    expect(opened.locator(".why")).to_be_visible()
    assert [("explain=cam" in query) for query in asked(doubting)] == [True, False, False, False, True]
    doubting.page.keyboard.press("Escape")
    expect(opened).to_have_count(0)
    doubting.page.keyboard.press("Enter")  # the focus is where it was: opens it again, without asking again
    expect(opened.locator(".why")).to_be_visible()
    assert len(asked(doubting)) == 5


def test_a_photo_that_the_browser_cannot_show_still_has_its_answer(
    doubting: Visit, draw_image: Callable[..., bytes]
) -> None:
    doubting.choose(("scan.tif", draw_image(0, "TIFF")))
    card = doubting.cards("answered")
    expect(card.locator(".bars li")).to_have_count(5)
    expect(card.locator(".none")).to_have_text("tif")
    expect(card.locator(".why")).to_be_hidden()


def test_a_sample_needs_no_key(visit: Callable[..., Visit], start: Callable[..., Server], tmp_path: Path) -> None:
    guarded = visit(start(environ={"REPVGG_API_KEYS": "secret"}).wait_until_serving().url)
    status = "fetch('page/samples/cat.jpg').then(reply => reply.status)"
    assert guarded.page.evaluate(status) == 200
