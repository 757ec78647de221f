"""Seeded adversarial input: ticks out of order, late, repeated, misspelt, with gaps, as JSON lines.

    python -m tests.reference.stream --out ticks.jsonl.gz --seed 1 --symbols BTCUSDT,SHIBUSDT --ticks 20000
    python -m tests.reference.stream --out real.jsonl.gz --seed 1 --base btcusdt.jsonl.gz --base ethusdt.jsonl.gz

The same arguments give the same bytes. Base ticks are a random walk of its own or read from files.
"""

from __future__ import annotations

import argparse
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.reference.acceptance import Rejected, Tick, milliseconds_of, read
from tests.reference.model import LATENESS_MS
from tests.reference.spelling import MALFORMED, any_spelling, canonical

START = milliseconds_of("2025-05-08T23:15:00Z")
"""Chosen so that a long stream crosses midnight: more than one date partition."""
MOST_UNITS = 10**18 - 1
_STEP_MS = 100
_MOST_DELAY_MS = 9_000
_GAPS_MS = (31_000, 61_500, 301_000, 901_000, 1_801_000, 3_601_007)


@dataclass(frozen=True)
class Shares:
    """How often what happens, as shares of the base ticks."""

    delayed: float = 0.5
    duplicates: float = 0.02
    late: float = 0.01
    boundary: float = 0.005
    malformed: float = 0.01
    spelled: float = 0.3


USUAL_SHARES = Shares()


class Line(NamedTuple):
    """One message's value, and what it is: tick, delayed, late, duplicate, boundary or malformed: and the kind."""

    value: bytes
    kind: str


class _Arrival(NamedTuple):
    at: int
    tie: float
    tick: Tick
    kind: str


@dataclass(frozen=True)
class _Style:
    """How a walk's prices move, in 1e-8: where it starts, its grid, its usual step in grid units."""

    start: int
    grid: int
    step: int


_STYLES = (
    _Style(6_183_763_000_000, 1_000_000, 150),
    _Style(123, 1, 2),
    _Style(MOST_UNITS - 10**11, 1, 40),
    _Style(100_000_000, 10_000, 3),
)
"""Ordinary, tiny (0.00000123), as large as can be with the finest grid, and near 1; taken in turn by the symbols."""


def random_walk(seed: int, symbol: str, ticks: int, style: int, gaps: int = 3) -> list[Tick]:
    """`ticks` ticks about 100 ms apart: wandering, flat, trending and jumping stretches, some polls missing."""
    random = Random(f"walk {seed} {symbol}")
    shape = _STYLES[style % len(_STYLES)]
    gap_at = dict(zip(random.sample(range(1, ticks), min(gaps, ticks - 1)), _gaps(random, gaps), strict=False))
    walk: list[Tick] = []
    time, price = START + random.randrange(0, 1000, _STEP_MS), shape.start
    mood, left = "wander", 0
    for index in range(ticks):
        if left == 0:
            mood = random.choice(("wander", "wander", "flat", "rise", "fall", "jump"))
            left = 1 if mood == "jump" else random.choice((5, 50, 150, 450))
        left -= 1
        step = random.randint(0, shape.step) * shape.grid
        if mood == "jump":
            price = price * random.choice((9, 11)) // 10 // shape.grid * shape.grid
        elif mood != "flat":
            price += step * {"rise": 1, "fall": -1}.get(mood, random.choice((-1, 1)))
        price = min(max(price, shape.grid), MOST_UNITS)
        walk.append(Tick(symbol, time, price))
        time += _STEP_MS * random.choice((1,) * 18 + (2, 7)) + gap_at.get(index, 0)
        # Off the grid now and then: every millisecond is a legal time.
        time += random.choice((0,) * 30 + (1, 37)) if time % _STEP_MS == 0 else -(time % _STEP_MS) + _STEP_MS
    return walk


def random_walks(seed: int, symbols: Sequence[str], ticks: int, gaps: int = 3) -> list[Tick]:
    """About `ticks` base ticks in all, shared out evenly over the symbols, merged by time."""
    each = max(1, ticks // len(symbols))
    walks = [random_walk(seed, symbol, each, index, gaps) for index, symbol in enumerate(symbols)]
    return sorted((tick for walk in walks for tick in walk), key=lambda tick: (tick.timestamp, tick.symbol))


def _gaps(random: Random, count: int) -> list[int]:
    return [_GAPS_MS[-1 - index % len(_GAPS_MS)] for index in random.sample(range(max(count, 6)), count)]


def read_ticks(paths: Iterable[Path]) -> list[Tick]:
    """The valid ticks of JSON lines files (.gz or plain), merged by time."""
    ticks: list[Tick] = []
    for path in paths:
        for line in read_lines(path):
            try:
                ticks.append(read(line))
            except Rejected as rejected:
                raise ValueError(f"{path} must hold valid ticks only: {rejected}: {line[:200]!r}") from rejected
    return sorted(ticks, key=lambda tick: (tick.timestamp, tick.symbol))


def with_holes(ticks: Sequence[Tick], seed: int, gaps: int) -> list[Tick]:
    """The ticks less those in `gaps` stretches per symbol, each a little longer than 30 s or 1 m."""
    random = Random(f"holes {seed}")
    holes: dict[str, list[tuple[int, int]]] = {}
    for symbol in sorted({tick.symbol for tick in ticks}):
        times = [tick.timestamp for tick in ticks if tick.symbol == symbol]
        starts = [random.randint(times[0] + 1, times[-1]) for _ in range(gaps)] if len(times) > 1 else []
        holes[symbol] = [(start, start + random.choice(_GAPS_MS[:2])) for start in starts]
    return [tick for tick in ticks if not any(low <= tick.timestamp < high for low, high in holes[tick.symbol])]


def disturb(ticks: Sequence[Tick], seed: int, shares: Shares = USUAL_SHARES, lag: int = 120_000) -> list[Line]:
    """The lines, in file order, of an adversarial stream made of these base ticks (ascending in time).

    Every second symbol arrives `lag` ms behind the others, as a partition that is read later would.
    """
    random = Random(f"disturb {seed}")
    symbols = sorted({tick.symbol for tick in ticks})
    lags = {symbol: lag * (index % 2) for index, symbol in enumerate(symbols)}
    arrivals = [arrival for tick in ticks for arrival in _arrivals(tick, lags[tick.symbol], random, shares)]
    kinds = _endless_kinds(random)
    largest: dict[str, int] = {}
    lines: list[Line] = []
    for arrival in sorted(arrivals):
        tick = arrival.tick
        lines.append(_line(tick, arrival.kind, random, shares))
        reached = largest[tick.symbol] = max(tick.timestamp, largest.get(tick.symbol, tick.timestamp))
        if random.random() < shares.late / 2:
            behind = LATENESS_MS + random.choice((1, 1, random.randint(2, 90_000)))
            lines.append(_line(_shocked(tick, reached - behind), "late", random, shares))
        if random.random() < shares.boundary:
            lines.append(_line(_shocked(tick, reached - LATENESS_MS), "boundary", random, shares))
        if random.random() < shares.malformed:
            kind = next(kinds)
            lines.append(Line(MALFORMED[kind](tick), f"malformed: {kind}"))
    return lines


def _arrivals(tick: Tick, lag: int, random: Random, shares: Shares) -> Iterator[_Arrival]:
    delay, kind = 0, "tick"
    if random.random() < shares.delayed:
        delay, kind = random.randint(1, _MOST_DELAY_MS), "delayed"
    if random.random() < shares.late / 2:
        delay, kind = random.randint(LATENESS_MS + _STEP_MS + 1, 45_000), "late"
    yield _Arrival(tick.timestamp + lag + delay, random.random(), tick, kind)
    if random.random() < shares.duplicates:
        again = _shocked(tick, tick.timestamp) if random.random() < 0.3 else tick
        after = delay + random.randint(0, 3_000) if random.random() < 0.9 else delay + random.randint(9_000, 30_000)
        yield _Arrival(tick.timestamp + lag + after, 1.0, again, "duplicate")


def _shocked(tick: Tick, timestamp: int) -> Tick:
    """The tick at another time with a price far off, so that a result that wrongly includes it shows."""
    return Tick(tick.symbol, timestamp, min(tick.units * 3 // 2 + 1, MOST_UNITS))


def _line(tick: Tick, kind: str, random: Random, shares: Shares) -> Line:
    value = any_spelling(tick, random) if random.random() < shares.spelled else canonical(tick)
    return Line(value, kind)


def _endless_kinds(random: Random) -> Iterator[str]:
    """Every kind once, shuffled, before any comes again."""
    while True:
        yield from random.sample(sorted(MALFORMED), len(MALFORMED))


def generate(seed: int, symbols: Sequence[str], ticks: int, gaps: int = 3) -> list[Line]:
    """A disturbed stream of about `ticks` base ticks in all."""
    return disturb(random_walks(seed, symbols, ticks, gaps), seed)


def read_lines(path: Path) -> list[bytes]:
    """A JSON lines file's lines without their line feeds, byte for byte."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.removesuffix(b"\n").split(b"\n") if content else []


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Writes JSON lines; compressed when the name ends in .gz, without a time, so equal input gives equal files."""
    content = b"".join(line.value + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes one stream and prints how many lines of each kind it has."""
    parser = argparse.ArgumentParser(prog="python -m tests.reference.stream", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file to write: .jsonl, or .gz compressed")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--symbols", default="", help="comma list; with --base: only these of the files' symbols")
    parser.add_argument("--base", type=Path, action="append", default=[], help="JSON lines file of ticks; repeatable")
    parser.add_argument("--ticks", type=int, help="base ticks in all (default 20000; with --base: all there are)")
    parser.add_argument("--gaps", type=int, default=3, help="gaps per symbol, each longer than a window (default 3)")
    parser.add_argument("--lag", type=float, default=120, help="seconds by which every second symbol arrives later")
    parser.add_argument(
        "--clean", action="store_true", help="the base ticks only, in order, as the producer writes them"
    )
    options = parser.parse_args(arguments)
    symbols = [symbol for symbol in options.symbols.split(",") if symbol]
    if options.base:
        ticks = [tick for tick in read_ticks(options.base) if not symbols or tick.symbol in symbols]
        ticks = with_holes(ticks[: options.ticks], options.seed, options.gaps)
    elif symbols:
        ticks = random_walks(options.seed, symbols, options.ticks or 20_000, options.gaps)
    else:
        parser.error("give --symbols, or --base with files of ticks")
    if options.clean:
        lines = [Line(canonical(tick), "tick") for tick in ticks]
    else:
        lines = disturb(ticks, options.seed, lag=round(options.lag * 1000))
    write_lines(options.out, lines)
    kinds = Counter(line.kind.partition(":")[0] for line in lines)
    malformed = len({line.kind for line in lines if line.kind.startswith("malformed")})
    print(f"{options.out}: {len(lines)} lines of {len(ticks)} base ticks")
    for kind, count in sorted(kinds.items()):
        print(f"  {kind:<10}{count:>8}" + (f"  of {malformed} kinds" if kind == "malformed" else ""))


if __name__ == "__main__":
    main()
