"""The stored ticks of one symbol, in the order in which the streams read them.

Offsets order the messages of a partition, until its topic is made anew or loses its newest messages and they begin anew
or go back. Somebody has then let the stream go on past it, which the table `gaps` tells: from there on it is another
generation of offsets.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orchestration.lakehouse import gap_log
from orchestration.lakehouse.backfill_log import Reach
from orchestration.lakehouse.snapshot import TableSnapshot, between, later_than, milliseconds, text
from tickhouse.contract.arrays import Integers

TABLE = "prices"
_ANEW = ("created again", "cut off")


class StoredTicks(NamedTuple):
    """n ticks of one symbol in offset order; every array has shape (n,)."""

    timestamps: Integers
    """Milliseconds since the epoch."""
    prices: Integers
    """In 1e-8 units."""
    generations: Integers
    partitions: Integers
    offsets: Integers

    def take(self, chosen: npt.NDArray[np.bool_]) -> StoredTicks:
        """Those that a mask of shape (n,) names."""
        return StoredTicks(*(values[chosen] for values in self))

    def within(self, reach: Reach) -> StoredTicks:
        """Those that are meant by `reach`."""
        last = np.full(len(self.offsets), -1, dtype=np.int64)
        for partition, offset in reach.offsets.items():
            last[self.partitions == partition] = offset
        chosen = (self.generations < reach.generation) | (
            (self.generations == reach.generation) & (self.offsets <= last)
        )
        return self.take(chosen)


class PriceHistory:
    """A version of the table `prices` under `lakehouse`. Raises TableNotFoundError, DeltaError, OSError."""

    def __init__(self, lakehouse: str) -> None:
        self.table = TableSnapshot(lakehouse, TABLE)
        boundaries = {
            row["skipped_at"] for row in gap_log.rows(lakehouse) if row["query"] == TABLE and row["reason"] in _ANEW
        }
        self._boundaries: list[datetime.datetime] = sorted(boundaries)

    def ticks(self, symbol: str, after: int, until: int) -> StoredTicks:
        """The ticks of a symbol with a timestamp in (after, until], in milliseconds."""
        columns = 'timestamp, price, "partition", "offset", ingested_at'
        found = self.table.select(columns, f"symbol = {text(symbol)} AND {between(after, until)}")
        begun = np.array([_microseconds(boundary) for boundary in self._boundaries], dtype=np.int64)
        ingested = found["ingested_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
        ticks = StoredTicks(
            milliseconds(found["timestamp"]),
            _units(found["price"]),
            np.searchsorted(begun, ingested, side="right").astype(np.int64),
            found["partition"].to_numpy().astype(np.int64),
            found["offset"].to_numpy().astype(np.int64),
        )
        # The order in which the streams' operators take them (`spark_jobs.sources.packing`).
        order = np.lexsort((ticks.partitions, ticks.offsets, ticks.generations))
        return StoredTicks(*(values[order] for values in ticks))

    def reach(self, after: int, until: int) -> Reach:
        """What tells the messages of this version from later ones, for ticks in (after, until], in milliseconds."""
        condition = f"{between(after, until)} AND {self._generation_conditions()[-1]}"
        found = self.table.select('"partition" AS part, max("offset") AS last', condition, 'GROUP BY "partition"')
        return Reach(
            len(self._boundaries), dict(zip(*(found[name].to_pylist() for name in ("part", "last")), strict=True))
        )

    def before_first_beyond(self, ticks: StoredTicks, symbol: str, limit: int) -> StoredTicks:
        """The ticks that come, in offset order, before the symbol's first with a timestamp later than `limit`."""
        for generation, ingested in enumerate(self._generation_conditions()):
            condition = f"symbol = {text(symbol)} AND {later_than(limit)} AND {ingested}"
            (first,) = self.table.select('min("offset") AS first', condition)["first"].to_pylist()
            if first is not None:
                earlier = (ticks.generations < generation) | (
                    (ticks.generations == generation) & (ticks.offsets < first)
                )
                return ticks.take(earlier)
        return ticks

    def _generation_conditions(self) -> list[str]:
        edges = [f"TIMESTAMP '{boundary.isoformat()}'" for boundary in self._boundaries]
        lower = ["TRUE", *(f"ingested_at >= {edge}" for edge in edges)]
        upper = [*(f"ingested_at < {edge}" for edge in edges), "TRUE"]
        return [f"{low} AND {high}" for low, high in zip(lower, upper, strict=True)]


def _microseconds(moment: datetime.datetime) -> int:
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)


def _units(prices: pa.ChunkedArray) -> Integers:
    """Prices in 1e-8 units: Arrow keeps a decimal(18,8) as 128-bit integers in those very units."""
    column = pa.concat_arrays(prices.chunks) if prices.num_chunks else pa.array([], prices.type)
    if column.type != pa.decimal128(18, 8):
        raise TypeError(f"prices are decimal(18,8), not {column.type}")
    buffer = column.buffers()[1]
    if buffer is None:
        return np.zeros(0, dtype=np.int64)
    words: Integers = np.frombuffer(buffer, dtype="<i8").reshape(-1, 2)
    return words[column.offset : column.offset + len(column), 0].copy()
