from __future__ import annotations

import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from models import charts

CSS = Path(__file__).parents[2] / "service" / "page" / "style.css"


def a_figure(title: str = "A title", subtitle: str = "and what it means") -> Figure:
    with charts.style():
        figure = charts.new_figure(4, 3, title, subtitle)
        figure.add_subplot().plot([1, 2, 3], [1, 4, 9])
    return figure


def test_the_colours_are_those_of_the_page() -> None:
    light = CSS.read_text().partition("@media")[0]
    page = dict(re.findall(r"--([\w-]+): (#\w+)", light))
    names = ("ground", "surface", "line", "text", "muted", "accent", "error")
    ours = (charts.GROUND, charts.SURFACE, charts.LINE, charts.TEXT, charts.MUTED, charts.ACCENT, charts.ERROR)
    assert ours == tuple(page[name] for name in names)
    assert set(charts.SERIES) <= set(page.values())


@pytest.mark.parametrize("suffix", charts.SUFFIXES)
def test_the_same_figure_gives_the_same_file_without_a_date_or_a_version(suffix: str) -> None:
    content = charts.encode(a_figure(), suffix)
    assert content == charts.encode(a_figure(), suffix)
    assert matplotlib.__version__.encode() not in content
    assert not re.search(rb"20\d\d-\d\d-\d\d|<metadata>|tIME", content)


def test_a_png_has_twice_the_pixels_of_its_size_on_a_page() -> None:
    with Image.open(BytesIO(charts.encode(a_figure()))) as picture:
        assert (picture.format, picture.size) == ("PNG", (800, 600))


def test_text_stays_text_in_an_svg() -> None:
    assert "A &lt;title&gt;" in charts.encode(a_figure("A <title>"), ".svg").decode()


def test_axes_stay_below_the_titles() -> None:
    figure = a_figure(subtitle="a long explanation " * 20)
    figure.draw_without_rendering()
    title, subtitle = (text.get_window_extent() for text in figure.texts)
    top = figure.axes[0].get_tightbbox().y1
    assert title.y0 >= subtitle.y1
    assert subtitle.y0 >= top
    assert subtitle.x1 <= figure.bbox.x1


def test_settings_of_matplotlib_are_as_before_and_those_of_the_user_do_not_matter() -> None:
    plain = charts.encode(a_figure())
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        assert charts.encode(a_figure()) == plain
        assert dict(matplotlib.rcParams) == before


def test_neither_this_module_nor_a_chart_imports_pyplot_and_importing_it_imports_no_matplotlib() -> None:
    program = """
import sys
from models import charts
assert charts.is_installed()
assert "matplotlib" not in sys.modules
with charts.style():
    charts.encode(charts.new_figure(1, 1, ""))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_matplotlib_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not charts.is_installed()
