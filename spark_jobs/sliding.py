"""Exact statistics over right-aligned sliding windows of one symbol's ticks: pure numpy, no Spark.

Belongs here: the arithmetic, and the history it needs, cut into one-minute chunks so that an update touches only
the chunks at the windows' edges. Does not belong here: which ticks count and when (`ordering`, `operators`).

Every sum is an exact integer: prices are integers in 1e-8 units, scaled down by the power of ten that they share.
A window's sums are the difference of two prefix sums, so a tick costs the same for every window, nothing drifts,
and the result depends on the ticks in the window alone, not on how they arrived. Sums are kept in 64 bits, in which
wrap-around cancels; where the spread of prices is too great for that, Python's integers do the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from spark_jobs.contract import PRICE_SCALE, WINDOWS, Floats, Integers

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
    history = _read(index, chunks, int(timestamps[0]), int(timestamps[-1]))
    new_index = _append(index, chunks, history.loaded, timestamps, prices)
    reach = new_index[new_index["minute"] >= (int(timestamps[0]) - _LONGEST_MS) // CHUNK_MS]
    statistics = _statistics(history, reach, timestamps, prices)
    expired = (new_index["minute"] + 1) * CHUNK_MS <= int(timestamps[-1]) - _LONGEST_MS
    for minute in new_index["minute"][expired].tolist():
        chunks.remove(minute)
    return new_index[~expired], statistics


class _History(NamedTuple):
    """What came before, in time order: single ticks where a window's edge may fall, else a whole chunk as one."""

    loaded: dict[int, tuple[Integers, Integers]]
    entries: list[tuple[Integers, Integers] | Any]


def _read(index: Index, chunks: Chunks, first: int, last: int) -> _History:
    starts = index["minute"] * CHUNK_MS
    edge = np.zeros(len(index), dtype=bool)
    for length in _LENGTHS.tolist():
        edge |= (starts <= last - length) & (starts + CHUNK_MS > first - length)
    loaded: dict[int, tuple[Integers, Integers]] = {}
    entries: list[Any] = []
    for record, wanted, start in zip(index, edge.tolist(), starts.tolist(), strict=True):
        if start + CHUNK_MS <= first - _LONGEST_MS:
            continue
        if wanted:
            minute = int(record["minute"])
            loaded[minute] = decode_chunk(chunks.load(minute))
            entries.append(loaded[minute])
        else:
            entries.append(record)
    return _History(loaded, entries)


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
    loaded: dict[int, tuple[Integers, Integers]],
    timestamps: Integers,
    prices: Integers,
) -> Index:
    minutes = timestamps // CHUNK_MS
    cuts = np.flatnonzero(np.diff(minutes)) + 1
    records = []
    for part_times, part_prices in zip(np.split(timestamps, cuts), np.split(prices, cuts), strict=True):
        minute = int(part_times[0] // CHUNK_MS)
        if len(index) and index["minute"][-1] == minute:
            old_times, old_prices = loaded[minute] if minute in loaded else decode_chunk(chunks.load(minute))
            part_times = np.concatenate((old_times, part_times))
            part_prices = np.concatenate((old_prices, part_prices))
            index = index[:-1]
        chunks.store(minute, encode_chunk(part_times, part_prices))
        records.append(_summary(minute, part_prices))
    return np.concatenate((index, np.array(records, dtype=INDEX_TYPE)))


def _summary(minute: int, prices: Integers) -> tuple[Any, ...]:
    exact = prices.astype(object)
    return (
        minute,
        len(prices),
        int(prices.min()),
        int(prices.max()),
        _shared_zeros(prices),
        _limbs(int(exact.sum()), 2),
        _limbs(int((exact * exact).sum()), 3),
    )


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


def _statistics(history: _History, reach: Index, timestamps: Integers, prices: Integers) -> Statistics:
    unit: int = 10 ** int(reach["zeros"].min())
    lowest, highest = int(reach["lowest"].min()), int(reach["highest"].max())
    ticks = int(reach["count"].sum())
    spread = (highest - lowest) // unit
    # The centred sum of squares of any window, and n times it in units of 1e-16, must fit their 64 and 128 bits.
    narrow = ticks * spread * spread < 2**58 and ticks * (highest - lowest) < 2**63
    reference = int(prices[0])

    times: list[Integers] = []
    weights: list[Integers] = []
    sums: list[npt.NDArray[Any]] = []
    squares: list[npt.NDArray[Any]] = []
    number: Any = np.int64 if narrow else object

    def add_ticks(some_times: Integers, some_prices: Integers) -> None:
        offsets = ((some_prices - reference) // unit).astype(number)
        times.append(some_times)
        weights.append(np.ones(len(some_times), dtype=np.int64))
        sums.append(offsets)
        squares.append(offsets * offsets)

    def add_chunk(record: Any) -> None:
        count, total = int(record["count"]), _from_limbs(record["total"])
        square = _from_limbs(record["squares"]) - 2 * reference * total + count * reference * reference
        times.append(np.array([record["minute"] * CHUNK_MS], dtype=np.int64))
        weights.append(np.array([count], dtype=np.int64))
        sums.append(np.array([(total - count * reference) // unit], dtype=object))
        squares.append(np.array([square // (unit * unit)], dtype=object))

    for entry in history.entries:
        if isinstance(entry, tuple):
            add_ticks(*entry)
        else:
            add_chunk(entry)
    before = sum(len(part) for part in times)
    add_ticks(timestamps, prices)

    time = np.concatenate(times)
    upper = np.arange(before + 1, before + 1 + len(timestamps))
    lower = np.stack([np.searchsorted(time, timestamps - length, side="right") for length in _LENGTHS.tolist()])
    weight = _prefix(np.concatenate(weights))
    count = weight[upper] - weight[lower]
    if narrow:
        total = _prefix(np.concatenate([_wrapped(part) for part in sums]))
        square = _prefix(np.concatenate([_wrapped(part) for part in squares]))
        return _finish_narrow(count, total[upper] - total[lower], square[upper] - square[lower], reference, unit)
    total = _prefix(np.concatenate(sums))
    square = _prefix(np.concatenate(squares))
    return _finish_wide(count, total[upper] - total[lower], square[upper] - square[lower], reference, unit)


def _wrapped(values: npt.NDArray[Any]) -> Integers:
    """Values modulo 2^64: chunk sums are Python integers, of which only the low bits matter in differences."""
    if values.dtype != object:
        return values
    return np.array([value & _LOW_64 for value in values.tolist()], dtype=np.uint64).view(np.int64)


def _prefix(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    sums = np.zeros(len(values) + 1, dtype=values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums


def _finish_narrow(count: Integers, total: Integers, square: Integers, reference: int, unit: int) -> Statistics:
    centre = total // count
    rest = total - centre * count
    # Around the floored mean the sum of squares is small: every wrapped term has come back into range.
    around = square - 2 * centre * total + count * centre * centre
    high, low = _multiply(around.astype(np.uint64), count.astype(np.uint64))
    taken = (rest * rest).astype(np.uint64)
    high = high - (low < taken)
    low = low - taken
    scale = np.uint64(unit * unit)
    carry, low = _multiply(low, np.broadcast_to(scale, low.shape))
    high = high * scale + carry
    units, excess = np.divmod(rest * unit, count)
    return _rounded(count, reference + centre * unit + units, excess, high, low)


def _multiply(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> tuple[Any, Any]:
    """The 128-bit products of 64-bit factors, as high and low halves."""
    left_low, left_high = left & _LOW_32, left >> _THIRTY_TWO
    right_low, right_high = right & _LOW_32, right >> _THIRTY_TWO
    lowest = left_low * right_low
    middle = left_high * right_low + (lowest >> _THIRTY_TWO)
    other = left_low * right_high + (middle & _LOW_32)
    return left_high * right_high + (middle >> _THIRTY_TWO) + (other >> _THIRTY_TWO), left * right


def _finish_wide(count: Integers, total: Any, square: Any, reference: int, unit: int) -> Statistics:
    exact_count = count.astype(object)
    dispersion = (exact_count * square - total * total) * (unit * unit)
    prices = total * unit + exact_count * reference
    quotient = prices // exact_count
    return _rounded(
        count,
        quotient.astype(np.int64),
        (prices - quotient * exact_count).astype(np.int64),
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
