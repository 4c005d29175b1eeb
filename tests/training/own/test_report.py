"""The report in a browser: Chromium where it is installed."""

import io
import re
import shutil

import pytest
from PIL import Image

from models.store import open_bundle
from models.versions import write_version
from training import start
from training.own.backbone import Backbone
from training.own.fitting import fit_head
from training.own.photos.collection import collect
from training.own.publishing.bundle import draft
from training.own.report.heat import _answered_by, heat_maps
from training.own.seen import see

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def report(draw_photos, tiny_bundle, tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    photos = draw_photos(root / "fruit", 12)
    name = "<img src=x onerror=alert(1)>&amp;.jpg"
    (photos / "lime/000.jpg").rename(photos / "lime" / name)
    shutil.copy(photos / "lime" / name, photos / "lime/copy.jpg")
    shutil.copy(photos / "plum/001.jpg", photos / "lime/planted.jpg")
    flags = ["--out", str(root / "store/mine/1"), "--from", str(tiny_bundle), "--record", str(root / "record")]
    assert start.main([str(photos), *flags]) == 0
    return root / "record" / "report.html"


def test_it_is_one_file_that_names_no_other_host(report):
    text = report.read_text()
    addresses = set(re.findall(r"https?://[^\"\s]+", text))
    assert addresses == {"http://127.0.0.1:8000", "http://www.w3.org/2000/svg"}  # a line to type, and a name
    assert "default-src 'none'" in text
    assert "<img src=x" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt install chromium")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_cell_of_the_confusion_matrix_shows_its_photos(report, theme):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(color_scheme=theme)
        page.set_default_timeout(120_000)  # milliseconds, on a busy machine
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(report.as_uri())
        assert page.locator(".big").inner_text().endswith("%")
        cell = page.locator("button.cell").last
        count = int(cell.inner_text())
        cell.click()
        assert page.locator("#cell li img").count() == count
        widths = page.locator("img").evaluate_all("all => all.filter(one => one.complete).map(one => one.naturalWidth)")
        assert widths
        assert min(widths) > 0
        assert page.locator(".pair").count() >= 2
        assert page.locator("img.heat").count() >= 1
        assert problems == []
        browser.close()


def test_a_heat_map_is_of_the_classifier_that_gave_the_wrong_answer(draw_photos, tiny_bundle, tmp_path):
    photos = draw_photos(tmp_path / "fruit", 12)
    shutil.copy(photos / "plum/001.jpg", photos / "lime/planted.jpg")
    base = open_bundle(tiny_bundle)
    backbone = Backbone(base)
    seen = see(collect(photos), backbone, base.manifest.preprocess, seed=0, seconds=0)
    outcome = fit_head(seen, 0)
    answers = outcome.judged
    written = draft(base, backbone, outcome.fitted.head, seen, answers, tmp_path / "drafts" / "1", "fruit")
    maps = heat_maps(written, seen, answers, outcome.judging, 5)
    wrong = answers.mistakes[:5]
    assert list(maps) == [answers.photos[row] for row in wrong]
    for row in wrong:
        answered = [head for mask, head in outcome.judging.values() if mask[row]]
        assert _answered_by(row, outcome.judging) is answered[0]
        with Image.open(io.BytesIO(maps[answers.photos[row]])) as picture:
            assert picture.size == (96, 72)
    plain = tiny_bundle_without_features(written, tmp_path)
    assert heat_maps(plain, seen, answers, outcome.judging, 5) == {}


def tiny_bundle_without_features(bundle, tmp_path):
    artifact = bundle.manifest.artifacts[0].model_copy(update={"features": None})
    return write_version(bundle, tmp_path / "plain" / "1", [artifact])
