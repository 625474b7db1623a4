"""Tables of numbers for the terminal, as all benchmarks print them."""

from typing import Any

from ssdd_lightning.evaluation.text_table import text_table

Row = dict[str, Any]


def print_table(title: str, rows: list[Row]) -> None:
    """Print one row a dictionary; a column is a key of any of them."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[shown(row.get(head, "")) for head in heads] for row in rows]
    print(f"\n{title}\n{text_table(heads, cells, left=())}")


def shown(value: Any) -> str:
    """A number with the digits that mean something."""
    if not isinstance(value, float):
        return str(value)
    if 0 < value < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4f}" if 99 < value <= 100 else f"{value:.2f}"
