"""What must come out of the pipeline for a given list of input messages, in integers of 1e-8 price and of 1 ms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.reference.acceptance import Rejected, Tick, accept, right_key

INPUT_TOPIC = "btc-price"
WINDOWS: tuple[tuple[str, int], ...] = (
    ("30s", 30_000),
    ("1m", 60_000),
    ("5m", 300_000),
    ("15m", 900_000),
    ("30m", 1_800_000),
    ("1h", 3_600_000),
)
WINDOW_NAMES = tuple(name for name, _ in WINDOWS)
LATENESS_MS = 10_000
HORIZON_MS = 20_000

Coordinates = tuple[int, int]
"""(partition, offset)"""
Key = tuple[str, int]
"""(symbol, timestamp in ms): a tick's identity"""


class Message(NamedTuple):
    """One message of the input topic; `timestamp` is the Kafka record's own, in ms, -1 where it has none."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def keyed(partition: int, offset: int, timestamp: int, value: bytes | None) -> Message:
    """A message with the key that it must have to be a tick."""
    return Message(partition, offset, timestamp, right_key(value), value)


class WindowStats(NamedTuple):
    """A window's exact sums: `size` ticks, `total` = Σu, `spread` = size·Σu² − (Σu)², u = price in 1e-8.

    mean = total / size in 1e-8; sample variance = spread / (size·(size − 1)) in 1e-16.
    """

    size: int
    total: int
    spread: int


class Reject(NamedTuple):
    """A message that is not a tick, with this reference's reason (the product words its own)."""

    reason: str
    message: Message


@dataclass
class SymbolCount:
    """What happened to one symbol's valid messages."""

    on_time: list[Tick] = field(default_factory=list)
    """Distinct, in the order in which they count (offset order)."""
    late: int = 0
    duplicates: int = 0
    largest: int | None = None
    """The largest timestamp seen, ms."""


@dataclass
class Expected:
    """Everything the pipeline owes for its input. `higher` and `lower` are in ms; all four hold final results only."""

    messages: int
    prices: dict[Coordinates, Tick]
    rejects: dict[Coordinates, Reject]
    symbols: dict[str, SymbolCount]
    units: dict[Key, int]
    """The price of every distinct on-time tick, final or not."""
    stats: dict[Key, tuple[WindowStats, ...]]
    higher: dict[Key, int]
    lower: dict[Key, int]

    @property
    def late(self) -> int:
        return sum(count.late for count in self.symbols.values())

    @property
    def duplicates(self) -> int:
        return sum(count.duplicates for count in self.symbols.values())


def evaluate(messages: Iterable[Message], lateness: int = LATENESS_MS) -> Expected:
    """Every expected result; `lateness` in ms. Messages may come in any order: Kafka coordinates decide.

    A symbol spread over partitions (its messages had other keys) is taken in the order (offset, partition).
    """
    ordered = sorted(messages, key=lambda message: (message.offset, message.partition))
    prices: dict[Coordinates, Tick] = {}
    rejects: dict[Coordinates, Reject] = {}
    symbols: dict[str, SymbolCount] = {}
    units: dict[Key, int] = {}
    for message in ordered:
        coordinates = (message.partition, message.offset)
        try:
            tick = accept(message.key, message.value, message.timestamp)
        except Rejected as rejected:
            rejects[coordinates] = Reject(str(rejected), message)
            continue
        prices[coordinates] = tick
        _count(symbols.setdefault(tick.symbol, SymbolCount()), tick, units, lateness)
    stats: dict[Key, tuple[WindowStats, ...]] = {}
    higher: dict[Key, int] = {}
    lower: dict[Key, int] = {}
    for symbol, count in symbols.items():
        if count.largest is None:
            continue
        settled = count.largest - lateness
        times = sorted(tick.timestamp for tick in count.on_time)
        series = [units[symbol, time] for time in times]
        for time, windows in zip(times, all_windows(times, series), strict=True):
            if time > settled:
                break
            stats[symbol, time] = windows
        for results, sign in ((higher, 1), (lower, -1)):
            signed = [sign * value for value in series]
            for time, rise in zip(times, first_rises(times, signed), strict=True):
                # A result is certain once nothing can arrive any more at or before the moment that decides it.
                if time + rise <= settled:
                    results[symbol, time] = rise
    return Expected(len(ordered), prices, rejects, symbols, units, stats, higher, lower)


def _count(count: SymbolCount, tick: Tick, units: dict[Key, int], lateness: int) -> None:
    if count.largest is not None and tick.timestamp < count.largest - lateness:
        count.late += 1
        return
    key = (tick.symbol, tick.timestamp)
    if key in units:
        count.duplicates += 1
        return
    units[key] = tick.units
    count.on_time.append(tick)
    count.largest = tick.timestamp if count.largest is None else max(count.largest, tick.timestamp)


def all_windows(times: Sequence[int], units: Sequence[int]) -> Iterator[tuple[WindowStats, ...]]:
    """For each tick (times ascending, ms) the sums of its six windows (t − w, t]."""
    return zip(*(_one_window(times, units, length) for _, length in WINDOWS), strict=True)


def _one_window(times: Sequence[int], units: Sequence[int], length: int) -> Iterator[WindowStats]:
    first = total = squares = 0
    for last, (time, unit) in enumerate(zip(times, units, strict=True)):
        total += unit
        squares += unit * unit
        while times[first] <= time - length:
            gone = units[first]
            total -= gone
            squares -= gone * gone
            first += 1
        size = last - first + 1
        yield WindowStats(size, total, size * squares - total * total)


def first_rises(times: Sequence[int], units: Sequence[int]) -> list[int]:
    """For each tick (times ascending) the ms to the first strictly higher price in (t, t + 20 s]; 20,000 if none."""
    rises = [HORIZON_MS] * len(times)
    candidates: list[int] = []
    for index in range(len(times) - 1, -1, -1):
        while candidates and units[candidates[-1]] <= units[index]:
            candidates.pop()
        if candidates:
            rises[index] = min(HORIZON_MS, times[candidates[-1]] - times[index])
        candidates.append(index)
    return rises
