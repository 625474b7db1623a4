"""Tables as plain text, laid out by rich: the same in a terminal, a pipe and a log."""

from collections.abc import Collection, Sequence
from io import StringIO

_RULES = "\n".join(("    ", "    ", " -- ", "    ", " -- ", " -- ", "    ", "    ", ""))
"""rich's eight kinds of lines: rules of dashes below the headings and between sections, blanks elsewhere."""
_WIDTH = 1 << 20
"""Characters in a line: nothing is ever wrapped or cut, however narrow the terminal."""


def text_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    totals: Sequence[Sequence[str]] = (),
    left: Collection[int] = (0,),
) -> str:
    """Lay out a table in ASCII lines, without colours and without cutting a cell off.

    Args:
        headings: One per column.
        rows: One cell per column.
        totals: Further rows, below a rule.
        left: Columns that are aligned left; others are aligned right.

    Returns:
        Lines without trailing blanks, the headings first.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=Box(_RULES, ascii=True), show_edge=False, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if place in left else "right", no_wrap=True)
    for number, row in enumerate([*rows, *totals], start=1):
        table.add_row(*map(Text, row), end_section=number == len(rows))  # Text: brackets in names are not markup
    stream = StringIO()
    Console(file=stream, width=_WIDTH, color_system=None, force_terminal=False, force_jupyter=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
