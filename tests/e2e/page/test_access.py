"""For everybody: keyboard, phone, light and dark, reduced motion, and axe-core's rules, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from models.store import STORE

if TYPE_CHECKING:
    from conftest import Server, Visit

CAT = (STORE.parent / "samples" / "cat.jpg").read_bytes()
PHONE: dict[str, Any] = {"viewport": ViewportSize(width=390, height=844), "has_touch": True, "is_mobile": True}
DESKTOP: dict[str, Any] = {"viewport": ViewportSize(width=1280, height=900)}
# The rule for the size of what is to be hit (WCAG 2.2, 2.5.8) is off by default.
RULES = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
HEIGHTS = "cards => cards.map(card => card.getBoundingClientRect().height)"
MOVING = """() => [...document.querySelectorAll("*")].map(element => getComputedStyle(element))
  .filter(style => parseFloat(style.transitionDuration) > 0 || parseFloat(style.animationDuration) > 0).length"""


def violations(page: Page) -> str:
    found = Axe().run(page, options=RULES)
    return found.generate_report() if found.violations_count else ""


def choose_all_kinds(visit: Visit, drawings: Sequence[bytes]) -> None:
    """Not sure, failed, and a sure one that is open, with its heat map."""
    visit.choose(("notes.txt", b"no image"), *[(f"{seed}.jpg", image) for seed, image in enumerate(drawings)])
    expect(visit.cards("answered")).to_have_count(len(drawings))
    expect(visit.cards("error")).to_have_count(1)
    visit.choose(("cat.jpg", CAT))
    opened = visit.page.locator(".card.opened")
    opened.locator("button.guess").first.click()
    expect(opened.locator(".for")).to_have_text("for cat")
    opened.locator(".timing summary").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_in_any_state(
    visit: Callable[..., Visit],
    doubting_server: Server,
    draw_image: Callable[..., bytes],
    device: dict[str, Any],
    scheme: str,
) -> None:
    home = visit(doubting_server.url, color_scheme=scheme, reduced_motion="reduce", **device).ready()
    expect(home.page.locator("#samples")).to_be_visible()
    assert violations(home.page) == "", "without a photo"
    choose_all_kinds(home, [draw_image(seed) for seed in range(3)])
    assert violations(home.page) == "", "with photos"
    home.page.locator("#labels summary").click()
    home.page.get_by_label("Filter by label or file name").fill("nothing like it")
    assert violations(home.page) == "", "with a filter that nothing fits"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_where_a_key_is_needed_or_the_server_is_gone(
    visit: Callable[..., Visit], start: Callable[..., Server], jpeg_bytes: bytes, scheme: str
) -> None:
    guarded = start(environ={"REPVGG_API_KEYS": "secret"}).wait_until_serving()
    home = visit(guarded.url, color_scheme=scheme, reduced_motion="reduce")
    expect(home.page.locator("#key-text")).to_be_focused()
    assert violations(home.page) == ""
    home.page.locator("#key-text").fill("secret")
    home.page.keyboard.press("Enter")
    home.ready()
    guarded.close()
    home.choose(("cat.jpg", jpeg_bytes))
    expect(home.cards("error")).to_have_count(1)
    assert violations(home.page) == ""
    home.page.close()  # which ends its polling
    home.console = [text for text in home.console if "net::ERR_CONNECTION_RE" not in text]  # refused, or reset


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_documentation(visit: Callable[..., Visit], server: Server, scheme: str) -> None:
    documentation = visit(f"{server.url}/docs", color_scheme=scheme)
    expect(documentation.page.locator(".operation").first).to_be_visible()
    assert violations(documentation.page) == ""


def test_axe_itself_finds_what_is_wrong(home: Visit) -> None:
    home.ready().page.evaluate(
        "document.querySelector('#top-k').closest('label').replaceWith(document.querySelector('#top-k'))"
    )
    home.page.evaluate("document.querySelector('#tools').hidden = false")
    assert "every form element has a label" in violations(home.page)


def test_the_page_works_by_keyboard(doubting: Visit) -> None:
    page = doubting.page
    page.on(
        "filechooser", lambda _: None
    )  # suppresses the dialog from now on; the browser needs a moment to register it
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="API")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose images")).to_be_focused()
    assert page.locator("label[for=files]").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="cat")).to_be_focused()  # a sample
    page.keyboard.press("Enter")
    expect(doubting.cards("answered")).to_have_count(1)
    expect(page.locator(".open")).to_be_focused()  # what had it is gone
    page.keyboard.press("Enter")
    expect(page.locator(".opened")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator(".opened .bars")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".opened")).to_have_count(0)
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Clear")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.get_by_label("Choose images")).to_be_focused()


def test_files_can_be_chosen_by_keyboard(doubting: Visit) -> None:
    page = doubting.page
    page.on("filechooser", lambda _: None)  # as above
    page.get_by_label("Choose images").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([{"name": "cat.jpg", "mimeType": "image/jpeg", "buffer": CAT}])
    expect(doubting.cards("answered")).to_have_count(1)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_those_who_want_it_so(
    visit: Callable[..., Visit], doubting_server: Server, draw_image: Callable[..., bytes], motion: str
) -> None:
    home = visit(doubting_server.url, reduced_motion=motion).ready()
    choose_all_kinds(home, [draw_image(0)])
    assert (home.page.evaluate(MOVING) == 0) == (motion == "reduce")


def test_a_card_on_a_phone_is_under_half_a_screen(
    visit: Callable[..., Visit], doubting_server: Server, draw_image: Callable[..., bytes]
) -> None:
    phone = visit(doubting_server.url, **PHONE).ready()
    drawings = [draw_image(0, size=size) for size in ((640, 480), (480, 640), (2000, 300), (300, 2000), (500, 500))]
    half = PHONE["viewport"]["height"] / 2
    for number, image in enumerate(drawings):  # each is open when it has been added
        phone.choose((60 * "long name " + f"{number}.jpg", image))
        opened = phone.page.locator(".card.opened")
        expect(opened.locator(".why")).to_be_visible()
        opened.locator("button.guess").first.tap()
        assert max(phone.page.locator(".card").evaluate_all(HEIGHTS)) < half
    assert phone.page.evaluate("document.documentElement.scrollWidth") == PHONE["viewport"]["width"]


def test_nobody_is_told_to_drop_who_cannot(visit: Callable[..., Visit], doubting_server: Server) -> None:
    desktop, phone = (visit(doubting_server.url, **device).ready().page for device in (DESKTOP, PHONE))
    expect(desktop.get_by_text("drop them anywhere")).to_be_visible()
    expect(desktop.get_by_text("Take a photo")).to_be_hidden()
    expect(phone.get_by_text("Take a photo")).to_be_visible()
    for word in ("drop", "paste", "Point at"):
        assert word not in phone.locator("body").inner_text()


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_small_phone_in_light_and_dark(
    visit: Callable[..., Visit], server: Server, jpeg_bytes: bytes, path: str, scheme: str
) -> None:
    small = PHONE | {"viewport": ViewportSize(width=360, height=740)}
    home = visit(server.url + path, color_scheme=scheme, **small)
    if path == "/":
        home.ready().choose((60 * "long name " + ".jpg", jpeg_bytes), ("notes.txt", b"no image"))
        expect(home.cards("answered")).to_have_count(1)
        expect(home.cards("error")).to_have_count(1)
    else:
        expect(home.page.locator(".operation").first).to_be_visible()
    assert home.page.evaluate("document.documentElement.scrollWidth") == 360
    ground = home.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 3 * 128) == (scheme == "light")
