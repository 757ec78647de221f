"""Exact statistics over right-aligned sliding windows of one symbol's ticks: pure numpy, no Spark.

Every sum is an exact integer: prices are integers in 1e-8 units, scaled down by the power of ten that they share.
A window's sums are the difference of two prefix sums, so a tick costs the same for every window, nothing drifts,
and the result depends on the ticks in the window alone, not on how they arrived. Sums are kept in 64 bits, in which
wrap-around cancels; where the spread of prices is too great for that, Python's integers do the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import PRICE_SCALE, WINDOWS

CHUNK_MS = 60_000
_LENGTHS = np.array(list(WINDOWS.values()), dtype=np.int64)
_LONGEST_MS = int(_LENGTHS.max())
_LOW_64 = (1 << 64) - 1
_LOW_32 = np.uint64(0xFFFFFFFF)
_THIRTY_TWO = np.uint64(32)

INDEX_TYPE = np.dtype(
    [
        ("minute", "<i8"),
        ("count", "<i8"),
        ("lowest", "<i8"),
        ("highest", "<i8"),
        ("zeros", "<i8"),
        ("total", "<u8", 2),
        ("squares", "<u8", 3),
    ]
)
"""One record per chunk: its minute since the epoch, number of ticks, price range, trailing decimal zeros shared by its
prices, and the exact sums of prices and of their squares in little-endian 64-bit limbs."""

Index = npt.NDArray[Any]


class Chunks(Protocol):
    """Where chunks are kept, by minute since the epoch. A chunk is the bytes of two int64 rows: timestamps, prices."""

    def load(self, minute: int) -> bytes: ...

    def store(self, minute: int, chunk: bytes) -> None: ...

    def remove(self, minute: int) -> None: ...


class Statistics(NamedTuple):
    """Statistics of n ticks; each array has shape (windows, n), in the order of `WINDOWS`."""

    counts: Integers
    averages: Floats
    deviations: Floats
    """Sample standard deviations; NaN while a window holds fewer than two ticks."""


def empty_index() -> Index:
    """The index of a history without ticks."""
    return np.zeros(0, dtype=INDEX_TYPE)


def advance(index: Index, chunks: Chunks, timestamps: Integers, prices: Integers) -> tuple[Index, Statistics]:
    """Append final ticks to a history and give their statistics.

    `timestamps` (milliseconds) increase strictly and come after all that the history holds; `prices` are in 1e-8
    units; both have shape (n,), n ≥ 1. Chunks that no later window reaches are removed. Returns the new index.
    """
    first, last = int(timestamps[0]), int(timestamps[-1])
    reached = _from_minute(index, (first - _LONGEST_MS) // CHUNK_MS)
    at_edge = _edges(reached["minute"], first, last)
    edges = {minute: decode_chunk(chunks.load(minute)) for minute in reached["minute"][at_edge].tolist()}
    new_index = _append(index, chunks, edges, timestamps, prices)
    scale = _scale_of(_from_minute(new_index, (first - _LONGEST_MS) // CHUNK_MS))
    statistics = _statistics(reached, ~at_edge, [*edges.values()], timestamps, prices, scale)
    kept = _from_minute(new_index, (last - _LONGEST_MS) // CHUNK_MS)
    for minute in new_index["minute"][: len(new_index) - len(kept)].tolist():
        chunks.remove(minute)
    return kept, statistics


def _from_minute(index: Index, minute: int) -> Index:
    return index[np.searchsorted(index["minute"], minute) :]


def _edges(minutes: Integers, first: int, last: int) -> npt.NDArray[np.bool_]:
    """The chunks in which a window of the ticks from `first` to `last` may begin."""
    at_edge = np.zeros(len(minutes), dtype=bool)
    begins = np.searchsorted(minutes, (first - _LENGTHS) // CHUNK_MS)
    ends = np.searchsorted(minutes, (last - _LENGTHS) // CHUNK_MS, side="right")
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        at_edge[begin:end] = True
    return at_edge


def encode_chunk(timestamps: Integers, prices: Integers) -> bytes:
    """The bytes of a chunk; both arrays have shape (n,)."""
    return np.stack((timestamps, prices)).astype("<i8").tobytes()


def decode_chunk(chunk: bytes) -> tuple[Integers, Integers]:
    """The timestamps and prices that `encode_chunk` was given."""
    both = np.frombuffer(chunk, dtype="<i8").reshape(2, -1)
    return both[0], both[1]


def _append(
    index: Index,
    chunks: Chunks,
    loaded: Mapping[int, tuple[Integers, Integers]],
    timestamps: Integers,
    prices: Integers,
) -> Index:
    cuts = np.flatnonzero(np.diff(timestamps // CHUNK_MS)) + 1
    records = []
    for part_times, part_prices in zip(np.split(timestamps, cuts), np.split(prices, cuts), strict=True):
        minute = int(part_times[0] // CHUNK_MS)
        record = _summary(minute, part_prices)
        if len(index) and index["minute"][-1] == minute:
            old_times, old_prices = loaded[minute] if minute in loaded else decode_chunk(chunks.load(minute))
            part_times = np.concatenate((old_times, part_times))
            part_prices = np.concatenate((old_prices, part_prices))
            record = _joined(index[-1], record)
            index = index[:-1]
        chunks.store(minute, encode_chunk(part_times, part_prices))
        records.append(record)
    return np.concatenate((index, np.array(records, dtype=INDEX_TYPE)))


def _summary(minute: int, prices: Integers) -> tuple[Any, ...]:
    high, low = _multiply(prices.view(np.uint64), prices.view(np.uint64))
    return (
        minute,
        len(prices),
        int(prices.min()),
        int(prices.max()),
        _shared_zeros(prices),
        _limbs(_exact_sum(prices.view(np.uint64)), 2),
        _limbs((_exact_sum(high) << 64) + _exact_sum(low), 3),
    )


def _joined(old: Any, new: tuple[Any, ...]) -> tuple[Any, ...]:
    """The summary of the ticks of both."""
    minute, count, lowest, highest, zeros, total, squares = new
    return (
        minute,
        int(old["count"]) + count,
        min(int(old["lowest"]), lowest),
        max(int(old["highest"]), highest),
        min(int(old["zeros"]), zeros),
        _limbs(_from_limbs(old["total"]) + _from_limbs(total), 2),
        _limbs(_from_limbs(old["squares"]) + _from_limbs(squares), 3),
    )


def _exact_sum(values: npt.NDArray[np.uint64]) -> int:
    return (int((values >> _THIRTY_TWO).sum()) << 32) + int((values & _LOW_32).sum())


def _shared_zeros(prices: Integers) -> int:
    """How many trailing decimal zeros all prices share, at most 8."""
    zeros = 8
    while (prices % 10**zeros).any():
        zeros -= 1
    return zeros


def _limbs(value: int, count: int) -> tuple[int, ...]:
    return tuple((value >> (64 * position)) & _LOW_64 for position in range(count))


def _from_limbs(limbs: Iterable[Any]) -> int:
    return sum(int(limb) << (64 * position) for position, limb in enumerate(limbs))


class _Scale(NamedTuple):
    """How the prices that windows may reach are written: as multiples of `unit`, so without the zeros they share."""

    zeros: int
    lowest: int
    """In 1e-8 units, as `unit`; a multiple of it."""
    narrow: bool
    """Whether 64 bits suffice."""

    @property
    def unit(self) -> int:
        return int(10**self.zeros)


def _scale_of(index: Index) -> _Scale:
    zeros = int(index["zeros"].min())
    lowest, highest = int(index["lowest"].min()), int(index["highest"].max())
    ticks = int(index["count"].sum())
    spread = (highest - lowest) // 10**zeros
    # The centred sum of squares of any window, and n times it in units of 1e-16, must fit their 64 and 128 bits.
    return _Scale(zeros, lowest, ticks * spread * spread < 2**58 and ticks * (highest - lowest) < 2**63)


def _statistics(
    index: Index,
    whole: npt.NDArray[np.bool_],
    edges: list[tuple[Integers, Integers]],
    timestamps: Integers,
    prices: Integers,
    scale: _Scale,
) -> Statistics:
    """Of the last ticks of a history; chunks that are `whole` go in as one entry each, those of `edges` as ticks."""
    number: Any = np.uint64 if scale.narrow else object
    starts = index["minute"][whole] * CHUNK_MS
    time = np.concatenate((starts, *(edge_times for edge_times, _ in edges), timestamps))
    units = (np.concatenate((*(edge_prices for _, edge_prices in edges), prices)) // scale.unit).astype(number)
    chunks = len(starts)
    sums = np.empty((3, len(time)), dtype=number)
    sums[0, :chunks], sums[0, chunks:] = index["count"][whole], 1
    sums[1, :chunks], sums[1, chunks:] = _quotients(index["total"][whole], scale.zeros, number), units
    sums[2, :chunks], sums[2, chunks:] = _quotients(index["squares"][whole], 2 * scale.zeros, number), units * units

    order = np.argsort(time, kind="stable")
    before = np.zeros((3, len(time) + 1), dtype=number)
    np.cumsum(sums[:, order], axis=1, out=before[:, 1:])
    lower = np.searchsorted(time[order], timestamps - _LENGTHS[:, None], side="right")
    upper = np.arange(len(time) - len(timestamps) + 1, len(time) + 1)
    count, total, square = before[:, None, upper] - before[:, lower]
    if scale.narrow:
        return _finish_narrow(count.view(np.int64), total.view(np.int64), square.view(np.int64), scale)
    return _finish_wide(count, total, square, scale.unit)


def _quotients(limbs: npt.NDArray[np.uint64], zeros: int, number: Any) -> npt.NDArray[Any]:
    """Multiples of ten to the power of `zeros`, at most 16, divided by it: in 64 bits modulo 2^64, else in full.

    Shape (n, limbs) to (n,). Modulo 2^64 there is a reciprocal of the odd factor, and the even one is a shift.
    """
    if number is object:
        exact = sum(limbs[:, place].astype(object) << (64 * place) for place in range(limbs.shape[1]))
        return cast(npt.NDArray[Any], exact // 10**zeros)
    shifted = limbs[:, 0] >> np.uint64(zeros) | limbs[:, 1] << np.uint64(64 - zeros)
    return shifted * np.uint64(pow(5**zeros, -1, 1 << 64))


def _finish_narrow(count: Integers, total: Integers, square: Integers, scale: _Scale) -> Statistics:
    unit = scale.unit
    lowest = scale.lowest // unit
    # What has wrapped around comes back into range by subtraction: the total less as many times the lowest price, ...
    centre, rest = np.divmod(total - count * lowest, count)
    centre += lowest
    # ... and around the floored mean the sum of squares.
    around = square - 2 * centre * total + count * centre * centre
    high, low = _multiply(around.view(np.uint64), count.view(np.uint64))
    taken = (rest * rest).view(np.uint64)
    high = high - (low < taken)
    low = low - taken
    scale_of_squares = np.uint64(unit * unit)
    carry, low = _multiply(low, scale_of_squares)
    high = high * scale_of_squares + carry
    units, excess = np.divmod(rest * unit, count)
    return _rounded(count, centre * unit + units, excess, high, low)


def _multiply(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64] | np.uint64) -> tuple[Any, Any]:
    """The 128-bit products of 64-bit factors, as high and low halves."""
    left_low, left_high = left & _LOW_32, left >> _THIRTY_TWO
    right_low, right_high = right & _LOW_32, right >> _THIRTY_TWO
    lowest = left_low * right_low
    middle = left_high * right_low + (lowest >> _THIRTY_TWO)
    other = left_low * right_high + (middle & _LOW_32)
    return left_high * right_high + (middle >> _THIRTY_TWO) + (other >> _THIRTY_TWO), left * right


def _finish_wide(count: Any, total: Any, square: Any, unit: int) -> Statistics:
    dispersion = (count * square - total * total) * (unit * unit)
    quotient = total * unit // count
    return _rounded(
        count.astype(np.int64),
        quotient.astype(np.int64),
        (total * unit - quotient * count).astype(np.int64),
        dispersion // (1 << 64),
        dispersion % (1 << 64),
    )


def _rounded(count: Integers, quotient: Integers, excess: Integers, high: Any, low: Any) -> Statistics:
    """Doubles from the exact integers mean = quotient + excess / count and n·Σx² − (Σx)² = high · 2^64 + low.

    The only place that rounds, and a function of these integers alone: so equal windows give equal bits.
    """
    whole, part = np.divmod(quotient, PRICE_SCALE)
    averages = whole + (part + excess / count) / PRICE_SCALE
    dispersion = high.astype(np.float64) * 2.0**64 + low.astype(np.float64)
    pairs = np.maximum(count * (count - 1), 1)
    deviations = np.where(count > 1, np.sqrt(dispersion / pairs) / PRICE_SCALE, np.nan)
    return Statistics(count, averages, deviations)
