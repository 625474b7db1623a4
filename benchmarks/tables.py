"""Tables of numbers for the terminal, as all benchmarks print them."""

from typing import Any

Row = dict[str, Any]


def print_table(title: str, rows: list[Row]) -> None:
    """Columns as wide as what stands in them."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [heads] + [[shown(row.get(head, "")) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    print(f"\n{title}")
    for line in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def shown(value: Any) -> str:
    """A number with the digits that mean something."""
    if not isinstance(value, float):
        return str(value)
    if 0 < value < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4f}" if 99 < value <= 100 else f"{value:.2f}"
