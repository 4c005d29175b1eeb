"""The documentation site builds strictly, agrees with the code, and loads nothing from other hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from scripts import docs_charts, docs_hooks
from service.api.problems import CODES
from service.app import create_app
from service.cli import VERBS
from service.settings import Settings, flag_name, variable_name
from training.config.keys import TrainConfig

ROOT = Path(__file__).parents[2]
# The attributes that make a browser fetch something.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
# What reaches over the right edge and cannot be scrolled to within its own box.
CUT_OFF = """() => [...document.querySelectorAll(".md-content *")].filter(element => {
  if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let box = element.parentElement; !box.matches(".md-content"); box = box.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
  return true;
}).map(element => element.outerHTML.slice(0, 80))"""
NEEDS_CHROMIUM = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Fetches(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if address := dict(attrs).get(FETCHED.get(tag, "")):
            self.addresses.append(address)


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        addresses = Fetches(page.read_text()).addresses
        assert any(address.endswith(".css") for address in addresses), page
        assert not [address for address in addresses if re.match(r"(\w+:)?//", address)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(\w+:)?//", style.read_text()), style


@NEEDS_CHROMIUM
def test_the_search_works_on_a_page_opened_as_a_file(site: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        fetched: list[str] = []
        page.on("request", lambda request: fetched.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.get_by_role("textbox", name="Search").click()
        page.keyboard.type("bisect golden")
        page.locator(".md-search-result__item").first.wait_for()
        browser.close()
    assert all(url.startswith("file:") for url in fetched), fetched


def written(site: Path, name: str) -> set[str]:
    """The code spans on a page of the reference."""
    return set(re.findall(r"<code>([^<]+)</code>", (site / "reference" / f"{name}.html").read_text()))


def test_the_reference_is_complete(site: Path) -> None:
    settings = {name(setting) for setting in Settings.model_fields for name in (flag_name, variable_name)}
    assert settings <= written(site, "settings")
    assert set(CODES) <= written(site, "errors")
    assert set(TrainConfig.model_fields) <= written(site, "recipe-keys")
    assert {"repvgg_model_info", "repvgg_build_info", "repvgg_images_total", "sha256", "route"} <= written(
        site, "metrics"
    )
    commands = (site / "reference/command-line.html").read_text()
    assert all(f">repvgg {verb}<" in commands for verb in VERBS)
    routes = (site / "reference/http.html").read_text()
    assert all(f" {path}<" in routes for path in create_app(Settings()).openapi()["paths"])
    verbs = (site / "reference/training-commands.html").read_text()
    assert all(f">training.{verb}<" in verbs for verb in ("train", "eval", "export", "convert", "quantize", "lite"))


def test_a_link_to_a_file_becomes_its_path_and_a_broken_link_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="decisions/x.md"))
    files = [SimpleNamespace(src_uri=name) for name in ("engines.md", "benchmark-log.md")]
    text = "[a](../engines.md#adding-one) [b](../../benchmarks/LOG.md) [c](../../Makefile) [d](https://x.y) [e](#f)"
    shown = "[a](../engines.md#adding-one) [b](../benchmark-log.md) `Makefile` [d](https://x.y) [e](#f)"
    assert docs_hooks.on_page_markdown(text, page, None, files) == shown
    assert caplog.records == []
    docs_hooks.on_page_markdown("[a](gone.md)", page, None, files)
    assert caplog.messages == ["docs/decisions/x.md links to docs/decisions/gone.md, which is not there"]


def test_a_picture_follows_the_theme_switch_of_the_site() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    files = [SimpleNamespace(src_uri=name) for name in ("index.md", "page-light.png", "page-dark.png")]
    picture = """<picture>
  <source media="(prefers-color-scheme: dark)" srcset="docs/page-dark.png">
  <img src="docs/page-light.png" alt="The page">
</picture>"""
    shown = "![The page](page-light.png#only-light) ![The page](page-dark.png#only-dark)"
    assert docs_hooks.on_page_markdown(picture, page, None, files) == shown


def test_the_front_page_shows_its_pictures(site: Path) -> None:
    page = (site / "index.html").read_text()
    pictures = [address for address in Fetches(page).addresses if re.search(r"\.(png|svg)", address)]
    assert {"page-light.png", "page-dark.png", "one-image.svg", "train-to-serve.svg", "icon.svg"} <= {
        Path(address.partition("#")[0]).name for address in pictures
    }
    assert all((site / address.partition("#")[0]).is_file() for address in pictures)


def test_the_charts_are_those_of_the_tables() -> None:
    for name, svg in docs_charts.charts().items():
        assert (ROOT / "docs/charts" / name).read_text() == svg, f"run python scripts/docs_charts.py: {name} is stale"


@NEEDS_CHROMIUM
def test_nothing_is_wider_than_its_page(site: Path) -> None:
    """Tables, code and drawings scroll inside themselves, on a laptop and on a phone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        for path in sorted(site.rglob("*.html")):
            page.goto(path.as_uri())
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 844})
                assert page.evaluate(CUT_OFF) == [], f"{path.relative_to(site)} at {width} pixels"
        browser.close()


def test_the_figures_are_those_of_the_log() -> None:
    log = (ROOT / "benchmarks/LOG.md").read_text().splitlines()
    rows = [line for line in (ROOT / "docs/performance.md").read_text().splitlines() if line.startswith("|")]
    assert rows
    assert [row for row in rows if row not in log] == []


def test_the_migration_table_covers_every_key_script_and_flag_of_the_seed() -> None:
    first_cells = re.findall(r"^\| (.*?) \|", (ROOT / "docs/migration.md").read_text(), re.MULTILINE)
    named = {word for cell in first_cells for code in re.findall(r"`(.*?)`", cell) for word in code.split()}
    seed = yaml.safe_load((ROOT / "tests/training/config/seed.yaml").read_text())
    assert set(seed) <= named
    assert set(seed) <= set(TrainConfig.model_fields)
    assert {script.name for script in (ROOT / "training/scripts").glob("run_*.sh")} <= named
    assert {"--config", "--device_target", "--device_id", "--pretrained", "--file_format"} <= named
