"""The rows of an answer, and what there is to ask, as tables for people.

Pure but for the rows, which are taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from orchestration.cli.sql_output import cell
from orchestration.lakehouse.sql import NAMES, Answer, TableColumns
from tickhouse.contract.names import WINDOWS

_LONG = 40
"""Longer texts may be broken: times and numbers are not."""
_BROKEN = 24
"""The least that is left to a column of long texts."""
_LIST = re.compile(r"array<struct<(.*)>>")


class Shown(NamedTuple):
    """Some rows, laid out."""

    parts: list[RenderableType]
    rows: int
    more: bool
    """Whether there are further rows."""


def rows_for_people(answer: Answer, limit: int, width: int) -> Shown:
    """The first `limit` rows, or all when it is 0, as a table; where that is too wide, row by row."""
    names = [_visible(name) for name in answer.schema.names]
    values = (row for batch in answer.batches for row in zip(*(column.to_pylist() for column in batch), strict=True))
    cells = [[_visible(cell(value)) for value in row] for row in islice(values, limit or None)]
    lengths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    least = sum(length if length <= _LONG else _BROKEN for length in lengths) + 3 * len(names) + 1
    parts: list[RenderableType] = [_table(names, cells, lengths)] if least <= width else list(_blocks(names, cells))
    return Shown(parts, len(cells), next(values, None) is not None)


def _table(names: Sequence[str], cells: Sequence[Sequence[str]], lengths: Sequence[int]) -> Table:
    table = Table()
    for name, length in zip(names, lengths, strict=True):
        table.add_column(escape(name), no_wrap=length <= _LONG, overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    return table


def _blocks(names: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterator[Table]:
    for number, row in enumerate(cells, start=1):
        block = Table(title=f"row {number:,}", title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        block.add_column(style="bold", overflow="fold")
        block.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            block.add_row(escape(name), escape(value))
        yield block


def what_to_ask(tables: Sequence[TableColumns]) -> list[RenderableType]:
    """The tables with their columns, and of lists how their parts are named."""
    parts: list[RenderableType] = []
    for name, rows, columns in tables:
        listing = Table(title=f"{name}: {rows:,} rows", title_justify="left")
        for head in ("column", "type"):
            listing.add_column(head, no_wrap=True)
        listing.add_column("what it is")
        for column, kind, text in columns:
            for shown in _rows_of_column(column, kind, text or ""):
                listing.add_row(*map(escape, shown))
        parts.append(listing)
    there = {table.name for table in tables}
    lacking = [name for name in NAMES if name not in there]
    if lacking:
        parts.append(f"Without rows as yet: {', '.join(lacking)}")
    return parts


def _rows_of_column(column: str, kind: str, text: str) -> Iterator[tuple[str, str, str]]:
    parts = _LIST.fullmatch(kind)
    if parts is None:
        yield column, kind, text
        return
    fields = [part.partition(":") for part in parts[1].split(",")]
    windows = f"entries 1 to {len(WINDOWS)} are the windows {', '.join(WINDOWS)}" if fields[0][0] == "window" else ""
    yield column, "list", "; ".join(filter(None, (text, windows)))
    for field, _, of_field in fields:
        yield f"{column}[1]['{field}']", of_field, ""


def _visible(text: str) -> str:
    """Control characters as escapes: what a message held must not reach the terminal's own language."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
