"""The scorecard as a picture: bars a class, and curves over bands and backgrounds, drawn with Pillow alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.evaluation.table import percent
from ssdd_lightning.metrics.background import best_point
from ssdd_lightning.storage.files import atomic_write

SCALE = 2  # pixels per unit of the layout below, for sharp text on today's screens
WIDTH, ROW, CURVE_HEIGHT = 640, 22, 260
MARGIN, LABEL = 24, 120
TEXT = 12
INK, RULE, PAPER = (40, 40, 40), (214, 214, 214), (255, 255, 255)
COLOURS = ((31, 98, 166), (214, 106, 34), (58, 140, 72), (150, 70, 160))
Curves = Mapping[str, Mapping[float, float]]


def write_chart(path: Path, card: Scorecard, title: str) -> None:
    """Draw a scorecard into a PNG that appears at once or not at all.

    Bars show the IoU of every class, one bar a card; below follow those of the trimap and background curves that were
    measured.

    Args:
        path: File to write, `.png`.
        card: The scores.
        title: What the legend calls the card; companions bring their titles.
    """
    cards = {title: card, **card.companions}
    parts = [_bars(cards)]
    if card.trimap_curve:
        bands = {name: {float(width): miou for width, miou in one.trimap_curve.items()} for name, one in cards.items()}
        parts.append(_curves("mIoU within bands around true contours, by width in pixels (log scale)", bands, True))
    if card.curves is not None:
        constant, alpha = card.curves.constant(), card.curves.alpha()
        parts.append(_curves("mIoU by constant background score", {_best(constant): constant}, False))
        parts.append(
            _curves("mIoU by alpha of the background (1 - max) ** alpha (log scale)", {_best(alpha): alpha}, True)
        )
    sheet = Image.new("RGB", (WIDTH * SCALE, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    with atomic_write(path) as stream:
        sheet.save(stream, format="PNG")


def _best(curve: Mapping[float, float]) -> str:
    value, miou = best_point(dict(curve))
    return f"best: {value:g}, mIoU {percent(miou)}"


class _Sheet:
    """A picture to draw on in units of the layout."""

    def __init__(self, height: float) -> None:
        self.image = Image.new("RGB", (WIDTH * SCALE, round(height * SCALE)), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(TEXT * SCALE)

    def text(self, x: float, y: float, words: str, anchor: str = "lm", fill: tuple[int, int, int] = INK) -> None:
        self.draw.text((x * SCALE, y * SCALE), words, fill, self.font, anchor=anchor)

    def box(self, left: float, top: float, right: float, bottom: float, fill: tuple[int, int, int]) -> None:
        self.draw.rectangle((left * SCALE, top * SCALE, max(left, right) * SCALE, bottom * SCALE), fill)

    def line(self, points: Sequence[tuple[float, float]], fill: tuple[int, int, int], width: float) -> None:
        self.draw.line([(x * SCALE, y * SCALE) for x, y in points], fill, round(width * SCALE), joint="curve")

    def legend(self, y: float, names: Sequence[str]) -> None:
        """Swatches with names in one line."""
        x = float(MARGIN)
        for name, colour in zip(names, COLOURS, strict=False):
            self.box(x, y - 5, x + 10, y + 5, colour)
            self.text(x + 15, y, name)
            x += 15 + self.font.getlength(name) / SCALE + 18


def _bars(cards: Mapping[str, Scorecard]) -> Image.Image:
    """IoU of every class that a card shows, and their mean."""
    first = next(iter(cards.values()))
    shown = [
        (name, [float(card.iou[index]) for card in cards.values()])
        for index, name in sorted(first.classes.items())
        if any(not math.isnan(card.iou[index]) for card in cards.values())
    ]
    rows = [("mIoU", [card.miou for card in cards.values()]), *shown]
    top, step = 2 * MARGIN + ROW, ROW if len(cards) == 1 else 14 * len(cards) + 6
    sheet = _Sheet(top + step * len(rows) + MARGIN)
    sheet.text(MARGIN, MARGIN, "IoU in percent")
    sheet.legend(MARGIN + ROW, list(cards))
    left, right = MARGIN + LABEL, WIDTH - 3 * MARGIN
    for number, (name, values) in enumerate(rows):
        y = top + step * number
        sheet.text(left - 8, y + step / 2 - 3, name[:18], "rm")
        height = (step - 6) / len(values)
        for place, value in enumerate(values):
            bar = y + place * height
            end = left + (right - left) * (0 if math.isnan(value) else value)
            sheet.box(left, bar, end, bar + height - 1, COLOURS[place % len(COLOURS)])
            sheet.text(end + 6, bar + height / 2, percent(value))
    return sheet.image


def _curves(title: str, curves: Curves, logarithmic: bool) -> Image.Image:
    """Lines over a common axis; a single one has a ring at its best point."""
    sheet = _Sheet(CURVE_HEIGHT)
    sheet.text(MARGIN, MARGIN, title)
    sheet.legend(MARGIN + ROW, list(curves))
    xs = sorted({x for curve in curves.values() for x in curve})
    ys = [y for curve in curves.values() for y in curve.values() if not math.isnan(y)] or [0.0]
    low, high = _round_range(min(ys), max(ys))
    left, right, top, bottom = 2 * MARGIN, WIDTH - MARGIN, MARGIN + 2 * ROW, CURVE_HEIGHT - MARGIN - 8

    def place(x: float, y: float) -> tuple[float, float]:
        across = _position(x, xs[0], xs[-1], logarithmic)
        return left + (right - left) * across, bottom - (bottom - top) * (y - low) / (high - low)

    for step in range(5):
        y = low + (high - low) * step / 4
        sheet.line([place(xs[0], y), place(xs[-1], y)], RULE, 0.5)
        sheet.text(left - 6, place(xs[0], y)[1], f"{100 * y:.4g}", "rm")
    for x in xs[:: -(-len(xs) // 10)]:  # at most ten numbers
        sheet.text(place(x, low)[0], bottom + 12, f"{x:g}", "mm")
    for curve, colour in zip(curves.values(), COLOURS, strict=False):
        points = [place(x, y) for x, y in curve.items() if not math.isnan(y)]
        if points:
            sheet.line(points, colour, 1.5)
        if points and len(curves) == 1:
            x, y = min(points, key=lambda point: point[1])
            sheet.draw.ellipse([(x - 4) * SCALE, (y - 4) * SCALE, (x + 4) * SCALE, (y + 4) * SCALE], None, colour, 3)
    return sheet.image


def _position(x: float, low: float, high: float, logarithmic: bool) -> float:
    if high <= low:
        return 0.5
    return math.log(x / low) / math.log(high / low) if logarithmic else (x - low) / (high - low)


def _round_range(low: float, high: float) -> tuple[float, float]:
    """The range widened to steps of 4 percent, so that its quarters are whole percents."""
    bottom, top = math.floor(low * 25) / 25, math.ceil(high * 25) / 25
    return bottom, top if top > bottom else bottom + 0.04
