"""Many photos: a grid with filter, order, CSV and limits, in a real browser, against a real server."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import Locator, ViewportSize, expect

from models.store import STORE

if TYPE_CHECKING:
    from conftest import Server, Visit

CAT = (STORE.parent / "samples" / "cat.jpg").read_bytes()
BROKEN = ("notes.txt", b"no image")
DESKTOP = ViewportSize(width=1280, height=900)


@pytest.fixture
def drawings(draw_image: Callable[..., bytes]) -> list[tuple[str, bytes]]:
    return [(f"{seed}.jpg", draw_image(seed)) for seed in range(20)]


@pytest.fixture
def mixed(doubting: Visit, draw_image: Callable[..., bytes]) -> Visit:
    """Two that are not sure, a sure one and a failed one."""
    doubting.choose(("10.jpg", draw_image(0)), ("9.jpg", draw_image(1)), ("my cat.jpg", CAT), BROKEN)
    expect(doubting.cards("answered")).to_have_count(3)
    expect(doubting.cards("error")).to_have_count(1)
    return doubting


def names(visit: Visit) -> list[str]:
    return visit.page.locator("#photos .file").all_text_contents()


def rows(visit: Visit) -> list[dict[str, str]]:
    """Of the CSV that the page saves."""
    with visit.page.expect_download() as saved:
        visit.page.get_by_role("button", name="CSV").click()
    assert saved.value.suggested_filename == "answers.csv"
    content = Path(saved.value.path()).read_bytes()
    assert content.startswith(b"\xef\xbb\xbf"), "without the mark Excel takes it for another encoding"
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def labels_shown(card: Locator) -> list[str]:
    return card.locator(".bars .label").all_text_contents()


def test_twenty_photos_fit_two_screens(
    visit: Callable[..., Visit], doubting_server: Server, drawings: list[tuple[str, bytes]]
) -> None:
    home = visit(doubting_server.url, viewport=DESKTOP).ready()
    home.choose(*drawings)
    expect(home.cards("answered")).to_have_count(20)
    assert home.page.evaluate("document.documentElement.scrollHeight") < 2 * DESKTOP["height"]


def test_a_filter_by_text_looks_at_labels_and_file_names(mixed: Visit) -> None:
    mixed.page.get_by_label("Filter by label or file name").fill("MY C")
    assert names(mixed) == ["my cat.jpg"]
    expect(mixed.page.locator("#summary")).to_have_text("1 of 4 photos")
    expect(mixed.page.locator("#announcement")).to_have_text("1 of 4 photos")
    mixed.page.locator("#top-k").fill("1")
    mixed.page.get_by_label("Filter by label or file name").fill("cat")
    best = mixed.page.locator("#photos .answer").all_text_contents()
    assert "cat" in best
    assert all("cat" in text for text in best)


def test_only_those_that_are_not_sure_or_failed_can_be_shown(mixed: Visit) -> None:
    expect(mixed.page.locator("#summary")).to_have_text("4 photos, 2 not sure, 1 failed")
    kinds = mixed.page.get_by_label("Which photos")
    kinds.select_option("not sure")
    assert names(mixed) == ["10.jpg", "9.jpg"]
    kinds.select_option("failed")
    assert names(mixed) == ["notes.txt"]
    kinds.select_option("all photos")
    assert len(names(mixed)) == 4


def test_an_order_by_name_or_score(mixed: Visit) -> None:
    order = mixed.page.get_by_label("Order")
    assert names(mixed) == ["10.jpg", "9.jpg", "my cat.jpg", "notes.txt"]
    order.select_option("by file name")
    assert names(mixed) == ["9.jpg", "10.jpg", "my cat.jpg", "notes.txt"]
    order.select_option("highest score first")
    scores = [float(text.removesuffix("%")) for text in mixed.page.locator(".open .score").all_text_contents() if text]
    assert names(mixed)[0] == "my cat.jpg"
    assert names(mixed)[-1] == "notes.txt"
    assert scores == sorted(scores, reverse=True)
    order.select_option("lowest score first")
    assert names(mixed)[-1] == "my cat.jpg"
    order.select_option("newest first")
    assert names(mixed) == ["10.jpg", "9.jpg", "my cat.jpg", "notes.txt"]


def test_what_is_shown_can_be_saved_as_csv(mixed: Visit, doubting_server: Server) -> None:
    mixed.page.locator("#top-k").fill("2")
    first, _, cat, failed = rows(mixed)
    assert list(first) == ["file", "confident", "label_1", "score_1", "label_2", "score_2", "error"]
    reply = httpx.post(f"{doubting_server.url}/classify", content=CAT, headers={"content-type": "image/jpeg"})
    told = reply.json()["results"][0]["predictions"]
    assert (first["file"], first["confident"], first["error"]) == ("10.jpg", "false", "")
    assert (cat["file"], cat["confident"]) == ("my cat.jpg", "true")
    assert (cat["label_1"], float(cat["score_1"])) == ("cat", pytest.approx(told[0]["score"], abs=1e-6))
    assert (cat["label_2"], float(cat["score_2"])) == (told[1]["label"], pytest.approx(told[1]["score"], abs=1e-6))
    assert failed["error"].startswith("The image cannot be decoded: ")
    assert (failed["confident"], failed["label_1"], failed["score_1"]) == ("", "", "")
    mixed.page.get_by_label("Which photos").select_option("failed")
    assert [row["file"] for row in rows(mixed)] == ["notes.txt"]


@pytest.mark.parametrize(
    "name",
    ["=HYPERLINK(1).jpg", "+1.jpg", "-1.jpg", "@SUM(1).jpg", "\t=1.jpg", " =1.jpg", "\uff1d1.jpg", "\u200b=1.jpg"],
)
def test_a_file_name_is_no_formula_in_a_spreadsheet(home: Visit, jpeg_bytes: bytes, name: str) -> None:
    home.ready().choose((name, jpeg_bytes))
    expect(home.cards("answered")).to_have_count(1)
    (row,) = rows(home)
    assert row["file"] == f"'{name}"


def test_a_file_name_with_quotes_commas_and_lines_stays_one_cell(home: Visit, jpeg_bytes: bytes) -> None:
    name = 'a "b", c\nd.jpg'
    home.ready().choose((name, jpeg_bytes))
    expect(home.cards("answered")).to_have_count(1)
    assert [row["file"] for row in rows(home)] == [name]


def test_labels_per_image_acts_at_once_without_sending_images_again(mixed: Visit) -> None:
    mixed.page.locator(".open").nth(2).click()
    opened = mixed.page.locator(".card.opened")
    expect(opened.locator(".why")).to_be_visible()
    sent = len(mixed.requests)
    for count in (2, 10, 1):
        mixed.page.locator("#top-k").fill(str(count))
        assert len(labels_shown(opened)) == count
        assert len(rows(mixed)[0]) == 3 + 2 * count
    assert [url for url in mixed.requests[sent:] if "classify" in url] == []


def test_labels_that_are_not_known_yet_are_asked_for(
    visit: Callable[..., Visit], wide_server: Server, draw_image: Callable[..., bytes]
) -> None:
    home = visit(wide_server.url).ready()
    home.choose(*[(f"{seed}.jpg", draw_image(seed)) for seed in range(3)])
    expect(home.cards("answered")).to_have_count(3)
    home.page.locator(".open").first.click()
    home.page.locator("#top-k").fill("25")
    home.page.keyboard.press("Enter")
    expect(home.page.locator(".opened .bars li")).to_have_count(25)
    assert [url.partition("?")[2] for url in home.requests if "classify" in url] == 3 * ["top_k=10"] + 3 * ["top_k=25"]
    home.page.locator("#top-k").fill("5000")
    assert len(labels_shown(home.page.locator(".opened"))) == 25, "what is known is shown at once"
    home.page.keyboard.press("Enter")
    expect(home.page.locator(".opened .bars li")).to_have_count(1000)


def test_the_limits_are_known_before_the_error(
    visit: Callable[..., Visit], start: Callable[..., Server], jpeg_bytes: bytes
) -> None:
    flags = "--max-body-bytes", 2 * 2**20, "--max-image-pixels", 3_000_000
    home = visit(start(*flags).wait_until_serving().url).ready()
    expect(home.page.locator("#limits")).to_have_text(
        "JPEG, PNG, WebP, GIF, BMP or TIFF, up to 2\u00a0MB and 3\u00a0megapixels each; as many as you like."
    )
    assert home.page.get_by_label("Choose images").get_attribute("aria-describedby") == "ways"
    home.choose(("large.jpg", jpeg_bytes + bytes(3 * 2**20)))
    expect(home.cards("error").locator(".words")).to_have_text(
        "The file is too large: it has 3\u00a0MB, and this server accepts 2\u00a0MB"
    )
    expect(home.cards("error").get_by_role("button", name="Try again")).to_be_hidden()
    assert [url for url in home.requests if "classify" in url] == [], "it was not sent"


def test_focus_and_what_is_open_survive_a_new_order(mixed: Visit) -> None:
    mixed.page.locator(".open").nth(2).click()
    mixed.page.locator(".open").nth(2).focus()
    mixed.page.evaluate(
        """() => { const sort = document.getElementById("sort");
        sort.value = "highest"; sort.dispatchEvent(new Event("input")); }"""
    )
    assert names(mixed)[0] == "my cat.jpg"
    expect(mixed.page.locator(".open").first).to_be_focused()
    expect(mixed.page.locator(".card").first.locator(".bars")).to_be_visible()
