from __future__ import annotations

from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image

from service.load.figures import Figures, summarise
from service.load.generator import Plan, Run, Sample
from service.load.histogram import BAR, HEIGHT, WIDTH, Box, Text, page, png, shapes


def figures(*latencies_ms: float) -> Figures:
    samples = [Sample(0.0, 0.0, latency / 1000, 200, None, "") for latency in latencies_ms]
    run = Run(samples, elapsed_s=1.0)
    return summarise(run, Plan(1.0, 1.0), url="http://<here>", model=None, deadline_ms=50, images=1, warm_up_s=0.0)


def bars(found: Figures) -> list[Box]:
    return [shape for shape in shapes(found, "a title") if isinstance(shape, Box) and shape.colour == BAR]


def test_a_bar_is_as_high_as_its_share_of_the_answers() -> None:
    heights = [bar.height for bar in bars(figures(10, 10, 10, 10, 80))]
    assert max(heights) == heights[0] == 4 * heights[-1]
    assert heights[1] == 0


def test_everything_is_inside_the_picture() -> None:
    for shape in shapes(figures(0.02, 3, 9000), "a title"):
        assert 0 <= shape.x <= WIDTH
        assert 0 <= shape.y <= HEIGHT
        if isinstance(shape, Box):
            assert shape.x + shape.width <= WIDTH
            assert shape.y + shape.height <= HEIGHT


def test_the_percentiles_and_the_deadline_are_marked() -> None:
    texts = [shape.text for shape in shapes(figures(10, 20, 80), "a title") if isinstance(shape, Text)]
    assert {"a title", "p50 20.0 ms", "p99 80.0 ms", "deadline", "10 ms", "50 ms"} <= set(texts)


@pytest.mark.parametrize("latencies", [(5.0,), (5.0, 5.0, 5.0), (1.0, 2000.0)])
def test_it_is_drawn_as_png_and_as_a_page(latencies: tuple[float, ...]) -> None:
    drawing = list(shapes(figures(*latencies), "<a title>"))
    with Image.open(BytesIO(png(drawing))) as picture:
        assert (picture.format, picture.size) == ("PNG", (WIDTH, HEIGHT))
        assert BAR in {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in picture.getcolors(1 << 16)}
    text = page(drawing, "<a title>").decode()
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert len(svg) == len(drawing)
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', ""), "nothing is loaded from elsewhere"


def test_without_an_answer_there_is_no_histogram() -> None:
    with pytest.raises(ValueError, match="no answer"):
        list(shapes(figures(), "a title"))
