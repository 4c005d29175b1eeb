"""The look of every chart: the page's colours, one font, one grid. Drawing needs matplotlib (the extra `charts`).

1. training and the service draw alike, with the same colours and sizes;
2. the same figure always gives the same file, without a date or a version;
3. nothing global changes: pyplot is not used, and each call leaves matplotlib's settings as they were;
4. matplotlib is imported by the first chart, not by this module.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_INSTALLED = "charts need matplotlib: pip install 'repvgg[charts]'"
# Suffix of a file -> metadata that matplotlib would write into it by default.
NO_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
}
SUFFIXES = tuple(NO_METADATA)
DOTS_PER_INCH = 200  # of a PNG; at half size, 10-point text is 14 pixels high and still easy to read
PAD_IN, TITLE_IN, LINE_IN, LETTERS_PER_INCH = 0.1, 0.27, 0.17, 12  # inches; letters of a subtitle

# The light theme of service/page/style.css.
GROUND, SURFACE, LINE, TEXT, MUTED = "#f6f5f1", "#fff", "#dfdcd3", "#20262b", "#5b636b"
ACCENT, ERROR = "#2b6a5b", "#a3352b"
# Their lightness differs as well, which helps readers who cannot tell the hues apart.
SERIES = (ACCENT, "#d49a36", "#7d9cc9", "#c77b8b", MUTED, ERROR, "#a7a196")

STYLE: dict[str, Any] = {
    "figure.facecolor": SURFACE,
    "savefig.facecolor": SURFACE,
    "axes.facecolor": SURFACE,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": TEXT,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": TEXT,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that every machine draws the same picture
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "svg.fonttype": "none",  # text stays text: it can be searched and copied
    "svg.hashsalt": "repvgg",  # otherwise the names inside the file differ from run to run
}


def is_installed() -> bool:
    """Whether matplotlib is installed; this imports nothing."""
    return find_spec("matplotlib") is not None


@contextmanager
def style() -> Iterator[None]:
    """The look above, whatever the user's matplotlibrc says; figures must be made and drawn inside."""
    from matplotlib import style as styles

    with styles.context(STYLE, after_reset=True):
        yield


def new_figure(width_in: float, height_in: float, title: str, subtitle: str = "") -> Figure:
    """A figure with its title at the top left, smaller lines under it, and room below for axes, which arrange
    themselves. Call it inside `style`.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import ScaledTranslation

    figure = Figure(figsize=(width_in, height_in))
    lines = textwrap.wrap(subtitle, int(width_in * LETTERS_PER_INCH))
    for text, down_in, look in (
        (title, PAD_IN, {"fontsize": 13, "fontweight": "bold"}),
        ("\n".join(lines), PAD_IN + TITLE_IN, {"color": MUTED}),
    ):
        place = figure.transFigure + ScaledTranslation(PAD_IN, -down_in, figure.dpi_scale_trans)
        figure.text(0, 1, text, transform=place, va="top", **look)
    below = 1 - (2 * PAD_IN + TITLE_IN + LINE_IN * len(lines)) / height_in
    side = PAD_IN / width_in
    figure.set_layout_engine("constrained", rect=(side, 0, 1 - 2 * side, below))
    return figure


def encode(figure: Figure, suffix: str = ".png") -> bytes:
    """The content of a file with one of SUFFIXES."""
    content = io.BytesIO()
    with style():
        figure.savefig(content, format=suffix.removeprefix("."), dpi=DOTS_PER_INCH, metadata=NO_METADATA[suffix])
    return content.getvalue()
