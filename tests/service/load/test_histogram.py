from __future__ import annotations

from io import BytesIO
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from PIL import Image

from service.load.figures import Figures, summarise
from service.load.generator import Plan, Run, Sample
from service.load.histogram import BAR, draw, encode


def figures(*latencies_ms: float, url: str = "http://<here>") -> Figures:
    samples = [Sample(0.0, 0.0, latency / 1000, 200, None, "") for latency in latencies_ms]
    run = Run(samples, elapsed_s=1.0)
    return summarise(run, Plan(1.0, 1.0), url=url, model=None, deadline_ms=50, images=1, warm_up_s=0.0)


def axes_of(*latencies_ms: float) -> Axes:
    figure = draw(figures(*latencies_ms))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    return axes


def test_a_bar_is_as_high_as_its_count_of_answers() -> None:
    heights = [bar.get_height() for bar in axes_of(10, 10, 10, 10, 80).patches]
    assert (heights[0], heights[1], heights[-1]) == (4, 0, 1)


@pytest.mark.parametrize("latencies", [(5.0,), (5.0, 5.0, 5.0), (1.0, 2000.0), (0.02, 3.0, 9000.0)])
def test_every_bar_line_and_tick_lies_inside_the_axes(latencies: tuple[float, ...]) -> None:
    axes = axes_of(*latencies)
    left, right = axes.get_xlim()
    bars = axes.patches
    assert left <= min(bar.get_x() for bar in bars)
    assert max(bar.get_x() + bar.get_width() for bar in bars) <= right * (1 + 1e-9)
    assert sum(left <= tick <= right for tick in axes.get_xticks()) >= 3
    assert right / left > 1.9
    marks = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata())]
    assert all(left <= mark <= right for mark in marks)


def test_a_bar_spans_its_bucket() -> None:
    (first, *_), histogram = axes_of(10, 80).patches, figures(10, 80).histogram
    assert first.get_x() + first.get_width() == pytest.approx(histogram[0][0])
    assert first.get_x() <= 10 <= first.get_x() + first.get_width()


def test_the_percentiles_and_the_deadline_are_marked() -> None:
    axes = axes_of(10, 20, 80)
    marks = {line.get_label(): float(line.get_xdata()[0]) for line in axes.lines}
    assert marks == {"p50 20.0 ms": 20, "p99 80.0 ms": 80, "deadline 50 ms": 50}
    assert {"10", "20", "50"} <= {label.get_text() for label in axes.get_xticklabels()}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latency (ms)", "answers")


def test_a_deadline_beyond_the_axis_is_still_in_the_legend() -> None:
    legend = axes_of(1, 2).get_legend()
    assert legend is not None
    assert legend.texts[-1].get_text() == "deadline 50 ms"


def test_it_is_drawn_as_a_png() -> None:
    with Image.open(BytesIO(encode(figures(5.0, 6.0), ".png"))) as picture:
        assert (picture.format, picture.size) == ("PNG", (1920, 960))
        colours = picture.convert("RGB").getcolors(1 << 20)
        assert BAR in {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in colours}


def test_it_is_drawn_as_a_page_that_loads_nothing_from_elsewhere() -> None:
    text = encode(figures(5.0, 6.0, url="http://<here>"), ".html").decode()
    assert text.startswith("<!DOCTYPE html>")
    assert "<title>http://&lt;here&gt;: closed loop" in text
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert any("p50" in (element.text or "") for element in svg.iter())
    links = [value for element in svg.iter() for name, value in element.items() if name.endswith(("href", "src"))]
    assert all(link.startswith("#") for link in links)
    assert "<script" not in text
    assert "@import" not in text


def test_without_an_answer_there_is_no_histogram() -> None:
    with pytest.raises(ValueError, match="no answer"):
        draw(figures())
