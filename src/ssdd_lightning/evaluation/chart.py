"""Scores as pictures: bars for each class, and curves over bands, backgrounds and biases."""

import math
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.evaluation.table import percent
from ssdd_lightning.metrics.background import best_point
from ssdd_lightning.storage.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
"""One a card: of Okabe and Ito's palette, which colour-blind people can tell apart."""
WIDTH, CURVE_HEIGHT, BAR_HEIGHT, FRAME = 8.0, 3.2, 0.16, 1.2
"""Inches: of the figure, of the axes of curves, of a bar, and of what surrounds the bars."""
LONGEST = 40
"""Characters of a class's name that are shown."""
Lines = Mapping[str, dict[float, float]]


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as a PNG that appears at once or not at all."""
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=160)


def write_chart(path: Path, card: Scorecard, title: str) -> None:
    """Draw a scorecard into a PNG that appears at once or not at all; see `draw_chart`.

    Args:
        path: File to write, `.png`.
        card: The scores.
        title: What the legend calls the card; companions bring their titles.
    """
    write_figure(path, draw_chart(card, title))


def draw_panels(across: str, panels: Mapping[str, Lines], levels: Mapping[str, float]) -> "Figure":
    """Draw mIoU by an option, one panel beside the other.

    Args:
        across: Label of the horizontal axes.
        panels: For each panel's title, the lines by their names, in the order of a second option.
        levels: Scores that do not depend on the options, by name.

    Returns:
        The figure, with one legend on the right.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 2 * len(panels) + WIDTH / 4, 1.2 * CURVE_HEIGHT), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (what, lines) in zip(all_axes, panels.items(), strict=True):
        for number, (title, curve) in enumerate(lines.items()):
            colour = colormaps["viridis"](0.9 * number / max(len(lines) - 1, 1))
            axes.plot(list(curve), [100 * value for value in curve.values()], "o-", ms=4, color=colour, label=title)
        for dashes, (title, level) in zip(("--", ":"), levels.items(), strict=False):
            axes.axhline(100 * level, color="black", ls=dashes, label=title)
        axes.set(xlabel=across)
        axes.set_title(what, loc="left")
        _frame(axes)
    all_axes[0].set_ylabel("mIoU (%)")
    all_axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def draw_chart(card: Scorecard, title: str) -> "Figure":
    """Draw a scorecard.

    Bars show the IoU of every class, one bar per card. The trimap and background curves that were measured follow
    below. All scores are in percent.

    Args:
        card: The scores.
        title: What the legend calls the card; companions bring their titles.

    Returns:
        The figure: axes with the bars, and below them axes for each kind of curve.
    """
    from matplotlib.figure import Figure  # this takes a second, and most runs draw nothing

    cards = {title: card, **card.companions}
    shown = [i for i in sorted(card.class_names) if any(not math.isnan(one.iou[i]) for one in cards.values())]
    names = ["mIoU", *(card.class_names[i] for i in shown)]
    bars = {name: [one.miou, *(float(one.iou[i]) for i in shown)] for name, one in cards.items()}
    curves = _curves(cards)
    heights = [FRAME + (len(cards) + 1) * BAR_HEIGHT * len(names)] + [CURVE_HEIGHT] * len(curves)
    figure = Figure(figsize=(WIDTH, sum(heights)))
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    first, *others = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    _draw_bars(first, names, bars)
    for axes, (what, across, lines) in zip(others, curves, strict=True):
        _draw_lines(axes, what, across, lines)
    return figure


def _curves(cards: Mapping[str, Scorecard]) -> list[tuple[str, str, Lines]]:
    """Title, x label, and mIoU by x, for each kind of curve that was measured."""
    card = next(iter(cards.values()))
    curves: list[tuple[str, str, Lines]] = []
    if card.trimap_curve:
        bands = {name: {float(x): y for x, y in one.trimap_curve.items()} for name, one in cards.items()}
        curves.append(("mIoU within bands around ground truth contours", "width of the band (pixels)", bands))
    if card.curves is not None:
        constant, alpha = card.curves.constant(), card.curves.alpha()
        curves.append(("mIoU by constant background score", "score", {_best(constant): constant}))
        curves.append(("mIoU by alpha of the background (1 - max) ** alpha", "alpha", {_best(alpha): alpha}))
    return curves


def _best(curve: dict[float, float]) -> str:
    value, miou = best_point(curve)
    return f"best: {value:g}, mIoU {percent(miou)} %"


def _draw_bars(axes: "Axes", names: list[str], bars: Mapping[str, list[float]]) -> None:
    """Draw one group of bars per name, with the first one, the mean, set apart."""
    places = [0.0, *(row + 0.3 for row in range(1, len(names)))]
    height = 1 / (len(bars) + 1)
    for number, (title, values), colour in zip(range(len(bars)), bars.items(), cycle(COLOURS)):
        middles = [place + (number - (len(bars) - 1) / 2) * height for place in places]
        lengths = [0 if math.isnan(value) else 100 * value for value in values]
        drawn = axes.barh(middles, lengths, 0.92 * height, color=colour, label=title)
        for text in axes.bar_label(drawn, [percent(value) for value in values], padding=3, fontsize="small"):
            text.set_in_layout(False)  # there may be hundreds, and the axes leave room for them
    shown = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    axes.set_yticks(places, shown, parse_math=False)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set(ylim=(places[-1] + 0.6, -0.6), xlim=(0, 109), xticks=(0, 25, 50, 75, 100), xlabel="IoU (%)")
    _dress(axes, "IoU of each class")


def _draw_lines(axes: "Axes", what: str, across: str, lines: Lines) -> None:
    """Draw one line per curve, with all of its points, or only the best if there are more than ten."""
    for (title, curve), colour, marker in zip(lines.items(), cycle(COLOURS), cycle("os^D"), strict=False):
        best = [list(curve).index(best_point(curve)[0])] if len(curve) > 10 else None
        values = [100 * value for value in curve.values()]
        axes.plot(list(curve), values, marker, ls="-", mfc="none", markevery=best, color=colour, label=title)
    if min(min(curve) for curve in lines.values()) > 0:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel=across, ylabel="mIoU (%)")
    _dress(axes, what)


def _dress(axes: "Axes", what: str) -> None:
    """Add a grid, a title, and a legend between it and the axes."""
    _frame(axes)
    axes.set_title(what, loc="left", pad=28)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0.2, ncols=4, frameon=False)


def _frame(axes: "Axes") -> None:
    """Add a grid, and leave two sides of the frame out."""
    axes.grid(axis="both" if axes.lines else "x", color="0.87")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
