"""From when on documents are kept: what retention has cut off of the collections, as pure functions.

A cut is of one symbol and counts back from that symbol's own newest row, not from the clock: a recording of last year
has its last days kept like any other. It lies on a midnight, UTC, and never moves back, or documents would be owed that
were removed.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from orchestration.lakehouse.snapshot import day_of, first_of, later_than, milliseconds_of, moment, text


class Cutoff(NamedTuple):
    """The documents of a symbol before `begin`, a time in UTC, are not kept."""

    symbol: str
    begin: datetime.datetime


Kept = tuple[Cutoff, ...]
"""At most one cut for each symbol, by symbol. All documents of the other symbols are kept."""


def cut_anew(kept: Kept, newest: Mapping[str, int], days: int) -> Kept:
    """The cuts once `days` whole days before the one of its newest row are kept of each symbol.

    `newest`: symbol to the timestamp of its newest row, in milliseconds. A cut that lies later already stays.
    """
    begins = dict(kept)
    for symbol, newest_ms in newest.items():
        begin = moment(first_of(day_of(newest_ms) - datetime.timedelta(days=days)))
        begins[symbol] = max(begin, begins.get(symbol, begin))
    return tuple(Cutoff(symbol, begins[symbol]) for symbol in sorted(begins))


def keeps_no_more(later: Kept, earlier: Kept) -> bool:
    """Whether all that `later` keeps is kept by `earlier`, too."""
    begins = dict(later)
    return all(symbol in begins and begins[symbol] >= begin for symbol, begin in earlier)


def kept_rows(batch: pa.RecordBatch, kept: Kept) -> pa.RecordBatch:
    """The rows of a batch, which has `symbol` and `timestamp`, whose documents are kept."""
    for symbol, begin in kept:
        of_symbol = pc.equal(batch["symbol"], symbol)
        before = pc.less(batch["timestamp"], pa.scalar(begin, batch["timestamp"].type))
        batch = batch.filter(pc.invert(pc.and_(of_symbol, before)))
    return batch


def kept_condition(kept: Kept) -> str:
    """The condition, in SQL, that a row's document is kept."""
    conditions = [f"(symbol <> {text(symbol)} OR {later_than(milliseconds_of(begin) - 1)})" for symbol, begin in kept]
    return " AND ".join(conditions) or "TRUE"


def cutoff_text(kept: Sequence[Cutoff]) -> str:
    """For people: from when on documents are kept."""
    return ", ".join(f"{symbol} from {begin:%F}" for symbol, begin in kept)
