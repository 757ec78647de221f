"""Where cuts come to lie, and which rows they leave."""

from __future__ import annotations

import datetime

import pytest

from orchestration.serving.cutoffs import Cutoff, Kept, cut_anew, cutoff_text, keeps_no_more, kept_condition, kept_rows
from tests.zscore_tables import rows
from tickhouse.contract.names import WINDOWS

DAY = 864_000
"""A day in ticks."""


def day(number: int) -> datetime.datetime:
    return datetime.datetime(2025, 5, number, tzinfo=datetime.UTC)


def milliseconds(time: datetime.datetime) -> int:
    return round(time.timestamp() * 1_000)


def cuts(**begins: int) -> Kept:
    return tuple(Cutoff(symbol, day(begin)) for symbol, begin in sorted(begins.items()))


@pytest.mark.parametrize(
    ("newest", "days", "begin"),
    [
        pytest.param(datetime.datetime(2025, 5, 8, 13, 6, tzinfo=datetime.UTC), 2, 6, id="whole days before its own"),
        pytest.param(day(8), 2, 6, id="the first moment of a day is of that day"),
        pytest.param(day(8) - datetime.timedelta(milliseconds=1), 2, 5, id="the last one, too"),
    ],
)
def test_a_cut_is_a_midnight_before_the_newest_row(newest: datetime.datetime, days: int, begin: int) -> None:
    assert cut_anew((), {"A": milliseconds(newest)}, days) == cuts(A=begin)


def test_each_symbol_has_its_own_and_none_moves_back() -> None:
    before = cuts(A=4, B=4, GONE=2)
    newest = {"NEW": milliseconds(day(3)), "A": milliseconds(day(9)), "B": milliseconds(day(9))}
    assert cut_anew(before, newest, 1) == cuts(A=8, B=8, GONE=2, NEW=2)
    assert cut_anew(before, newest, 6)[:2] == before[:2], "a longer retention leaves the cuts where they are"


@pytest.mark.parametrize(
    ("later", "earlier", "so"),
    [
        (cuts(A=4), cuts(A=4), True),
        (cuts(A=5, B=1), cuts(A=4), True),
        (cuts(A=3, B=1), cuts(A=4), False),
        (cuts(B=1), cuts(A=4), False),
        ((), (), True),
    ],
)
def test_what_keeps_no_more(later: Kept, earlier: Kept, so: bool) -> None:
    assert keeps_no_more(later, earlier) is so


def test_rows_before_the_cut_of_their_symbol_are_left_out() -> None:
    midnight = round((day(9).timestamp() - 1_746_709_560) * 10)
    batch = rows([midnight - 1, midnight, midnight + 1]).combine_chunks().to_batches()[0]
    assert kept_rows(batch, cuts(BTCUSDT=9)).equals(batch.slice(1))
    assert kept_rows(batch, cuts(OTHER=10)).equals(batch)
    assert kept_rows(batch, cuts(BTCUSDT=10, OTHER=1)).num_rows == 0
    assert kept_rows(batch, ()).equals(batch)
    assert batch["z_scores"][0].as_py()[0]["window"] == next(iter(WINDOWS))


def test_what_is_kept_is_told() -> None:
    assert cutoff_text(cuts(A=4, B=5)) == "A from 2025-05-04, B from 2025-05-05"
    assert kept_condition(()) == "TRUE"
    assert "symbol <> 'A''B'" in kept_condition((Cutoff("A'B", day(4)),))
