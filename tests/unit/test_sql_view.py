"""What a terminal shows of an answer: nothing is cut off, however narrow it is."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
from rich.console import Console

from orchestration.cli.sql_view import Shown, rows_for_people, what_to_ask
from orchestration.lakehouse.sql import NAMES, Answer, TableColumns
from orchestration.lakehouse.tables import plain_schema
from tests.zscore_tables import rows


def answer(table: pa.Table) -> Answer:
    return Answer(plain_schema(table.schema), iter(table.to_batches()))


def text(parts: Shown, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in parts.parts:
        console.print(part)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 80, 200, 100_000])
def test_nothing_is_cut_off(width: int) -> None:
    shown = text(rows_for_people(answer(rows(range(2))), 0, width), width)
    assert "…" not in shown
    assert shown.count("2025-05-08T13:06:00+00:00") == 1
    assert "".join(shown.replace("│", "").split()).count("zscore_price") == 12
    assert ("row 1" in shown) is (width <= 80), "what is too wide for a table comes row by row"


def test_a_pipe_has_one_row_a_line() -> None:
    shown = text(rows_for_people(answer(rows(range(3))), 0, 100_000), 100_000)
    assert len(shown.splitlines()) == 3 + 3 + 1


def test_the_limit_and_what_lies_beyond_it() -> None:
    assert rows_for_people(answer(rows(range(3))), 2, 80)[1:] == (2, True)
    assert rows_for_people(answer(rows(range(3))), 3, 80)[1:] == (3, False)
    assert rows_for_people(answer(rows(range(3))), 0, 80)[1:] == (3, False)
    assert rows_for_people(answer(rows(range(0))), 5, 80)[1:] == (0, False)


def test_what_a_message_held_does_not_reach_the_terminal() -> None:
    table = pa.table({"raw": ["\x1b[31mred [bold]", "plain"]})
    shown = text(rows_for_people(answer(table), 0, 80), 80)
    assert "\\x1b[31mred [bold]" in shown


def test_the_parts_of_a_list_are_named_as_a_query_names_them() -> None:
    kind = "array<struct<window:string,zscore_price:double>>"
    found = what_to_ask([TableColumns("zscores", 7, [("symbol", "string", None), ("z_scores", kind, "per window")])])
    console = Console(width=80, record=True, file=io.StringIO())
    for part in found:
        console.print(part)
    shown = console.export_text()
    assert "z_scores[1]['zscore_price'] │ double" in shown
    assert "30s, 1m, 5m, 15m, 30m, 1h" in " ".join(shown.replace("│", " ").split())
    assert f"Without rows as yet: {', '.join(name for name in NAMES if name != 'zscores')}" in " ".join(shown.split())
