"""The reliability diagram: accuracy by score, as served and with the fitted temperature (Guo et al. 2017, figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from models import charts
from service.evaluation.calibration import BINS, Bin, Calibration, Scores, expected_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACY, GAP, IMAGES = charts.ACCENT, "#e2a69d", charts.SERIES[-1]  # the gap: the page's red, lighter
PLOT_IN, HEIGHT_IN = 4.5, 6.4
SUBTITLE = (
    "A bar that ends on the dashed line is well calibrated; above it the model is under-confident, below it "
    "over-confident."
)


def draw(scores: Scores, calibration: Calibration) -> Figure:
    """The scores as they are and, if a temperature fits, with that one beside them."""
    temperatures = {"as served": scores.temperature}
    if calibration.fitted_temperature is not None:
        temperatures["fitted"] = calibration.fitted_temperature
    return draw_bins({f"{name}, temperature {one:.4g}": scores.bins(one) for name, one in temperatures.items()})


def draw_bins(plots: Mapping[str, Sequence[Bin]]) -> Figure:
    """Title -> bins. Above: accuracy by score; below: how many of the images have such a score."""
    with charts.style():
        title = "Reliability diagram"
        figure = charts.new_figure(PLOT_IN * len(plots) + 0.5, HEIGHT_IN, title, SUBTITLE)
        axes = figure.subplots(2, len(plots), sharex=True, sharey="row", height_ratios=(4, 1), squeeze=False)
        for column, (name, bins) in enumerate(plots.items()):
            _draw_accuracy(axes[0, column], bins)
            _draw_images(axes[1, column], bins)
            axes[0, column].set_title(f"{name}: ECE {expected_error(bins):.2%}")
        axes[0, 0].set_ylabel("accuracy (% of the images)")
        axes[1, 0].set_ylabel("images (%)")
        axes[0, 0].legend(loc="upper left")
    return figure


def _draw_accuracy(axes: Axes, bins: Sequence[Bin]) -> None:
    """A bar up to the accuracy of each bin, and on it the gap to the bin's mean score."""
    filled = [(number, one) for number, one in enumerate(bins) if one.images]
    places = [_percent((number + 0.5) / BINS) for number, _ in filled]
    accuracies = [_percent(one.accuracy) for _, one in filled]
    gaps = [_percent(one.score - one.accuracy) for _, one in filled]
    look: dict[str, Any] = {"width": _percent(1 / BINS), "edgecolor": charts.SURFACE}
    axes.bar(places, accuracies, color=ACCURACY, label="accuracy", **look)
    axes.bar(places, gaps, bottom=accuracies, color=GAP, label="gap to the score", **look)
    axes.plot([0, 100], [0, 100], color=charts.MUTED, linestyle="--", linewidth=1.2)
    axes.set(xlim=(0, 100), ylim=(0, 100))


def _draw_images(axes: Axes, bins: Sequence[Bin]) -> None:
    images = sum(one.images for one in bins) or 1
    places = [_percent((number + 0.5) / BINS) for number in range(len(bins))]
    shares = [_percent(one.images / images) for one in bins]
    axes.bar(places, shares, width=_percent(1 / BINS), color=IMAGES, edgecolor=charts.SURFACE)
    axes.set_xlabel("score of the best class (%)")


def _percent(share: float) -> float:
    return 100 * share
