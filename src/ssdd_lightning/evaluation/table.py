"""The scorecard as text: a table for the terminal, and CSV for other programs."""

import csv
import io
import math
from collections.abc import Sequence

from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.evaluation.text_table import text_table
from ssdd_lightning.metrics.background import best_point

HEADINGS = {
    **{"iou": "IoU", "precision": "precision", "recall": "recall", "fp": "FP", "fn": "FN"},
    "boundary_iou": "boundary",
}
"""Measures of a class and their headings."""
_LISTED = 20
"""Absent classes that the table names; JSON names all."""
Row = tuple[str, list[float]]


def scores_table(card: Scorecard, title: str = "IoU") -> str:
    """Write the scores for a terminal, in percent with two decimals.

    A card alone has a column for each measure. With companions there is one column per card: the classes' rows hold
    the IoU, and the means of the measures follow below.

    Args:
        card: The scores.
        title: Heading of the card's own column where it has companions.
    """
    headings, rows, totals = _alone(card) if not card.companions else _beside(card, title)
    text = text_table(["class", *headings], _cells(rows), _cells(totals))
    return "\n".join([text, "", *_footer(card, title)])


def scores_csv(card: Scorecard, title: str) -> str:
    """Write the scores as CSV: one line per class and one for the means (index empty), fractions, empty for no value.

    Args:
        card: The scores.
        title: What the first column calls the card; companions bring their titles.
    """
    cards = {title: card, **card.companions}
    fields = ["what", "index", "name", *card.columns, "truth_pixels", "predicted_pixels"]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n", restval="")
    writer.writeheader()
    for what, one in cards.items():
        writer.writerows({"what": what, **row} for row in one.class_rows())
        means = {name: "" if math.isnan(value) else value for name, value in one.means.items()}
        writer.writerow({"what": what, "name": "mean", **means})
    return text.getvalue()


def _alone(card: Scorecard) -> tuple[list[str], list[Row], list[Row]]:
    rows = [(name, [float(values[index]) for values in card.columns.values()]) for index, name in _shown(card, [card])]
    totals = [("mIoU, means", list(card.means.values())), ("coverage", [card.coverage])]
    return [HEADINGS[measure] for measure in card.columns], rows, totals


def _beside(card: Scorecard, title: str) -> tuple[list[str], list[Row], list[Row]]:
    cards = {title: card, **card.companions}
    rows = [
        (name, [float(one.iou[index]) for one in cards.values()]) for index, name in _shown(card, list(cards.values()))
    ]
    totals = [
        ("mIoU" if measure == "iou" else f"mean {HEADINGS[measure]}", [one.means[measure] for one in cards.values()])
        for measure in card.means
        if all(measure in one.means for one in cards.values())
    ]
    return list(cards), rows, [*totals, ("coverage", [one.coverage for one in cards.values()])]


def _shown(card: Scorecard, cards: Sequence[Scorecard]) -> list[tuple[int, str]]:
    """Index and name of the classes that at least one of the cards shows."""
    absent = _absent_everywhere(cards)
    return [(index, name) for index, name in sorted(card.class_names.items()) if name not in absent]


def _absent_everywhere(cards: Sequence[Scorecard]) -> list[str]:
    first, *others = cards
    return [name for name in first.absent if all(name in card.absent for card in others)]


def _footer(card: Scorecard, title: str) -> list[str]:
    lines = [f"percent; {card.images} images, {card.pixels} pixels; a predicted 255 counts as an error"]
    absent = _absent_everywhere([card, *card.companions.values()])
    if absent:
        more = f" and {len(absent) - _LISTED} more" if len(absent) > _LISTED else ""
        lines.append(f"not in the mean, because they occur nowhere: {', '.join(absent[:_LISTED])}{more}")
    cards = {title if card.companions else "": card, **card.companions}
    if len({tuple(one.absent) for one in cards.values()}) > 1:
        counts = ", ".join(f"{what} {len(one.class_names) - len(one.absent)}" for what, one in cards.items())
        lines.append(f"each mean is over the classes that occur in the ground truth or in its column: {counts}")
    for what, one in cards.items():
        if one.trimap_curve:
            points = ", ".join(f"{width} px {percent(miou)}" for width, miou in one.trimap_curve.items())
            lines.append(f"{what} mIoU within bands around ground truth contours: {points}".strip())
    if card.curves is not None:
        for kind, curve in (("constant", card.curves.constant()), ("(1 - max) ** alpha, alpha", card.curves.alpha())):
            value, miou = best_point(curve)
            lines.append(f"best background: {kind} {value:g}: mIoU {percent(miou)}")
    return [*lines, *card.notes]


def percent(value: float) -> str:
    """A fraction in percent with two decimals; "-" for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    return [[name, *map(percent, values)] for name, values in rows]
