"""The generated streams are what they claim to be: reproducible, legal where they should be, and nasty enough."""

from __future__ import annotations

import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.reference.acceptance import Rejected, Tick, accept, right_key
from tests.reference.model import WINDOWS, Expected, evaluate, keyed
from tests.reference.spelling import MALFORMED, canonical
from tests.reference.stream import (
    START,
    Line,
    generate,
    main,
    random_walk,
    read_lines,
    read_ticks,
    with_holes,
    write_lines,
)

ARRIVAL = START + 10**10
SYMBOLS = ["BTCUSDT", "SHIBUSDT", "BIG", "ONE"]
LINES = generate(seed=3, symbols=SYMBOLS, ticks=12_000)


def evaluated(lines: list[Line]) -> Expected:
    return evaluate([keyed(0, at, ARRIVAL, line.value) for at, line in enumerate(lines)])


def tick_of(line: Line) -> Tick:
    return accept(right_key(line.value), line.value, ARRIVAL)


def behind(lines: list[Line]) -> list[tuple[str, int]]:
    """For each valid line its kind and how many ms it is behind the largest timestamp before it."""
    largest: dict[str, int] = {}
    result = []
    for line in lines:
        if line.kind.startswith("malformed"):
            continue
        tick = tick_of(line)
        reached = largest.get(tick.symbol, tick.timestamp)
        result.append((line.kind, reached - tick.timestamp))
        largest[tick.symbol] = max(reached, tick.timestamp)
    return result


def test_equal_seeds_give_equal_streams_and_others_do_not() -> None:
    assert generate(3, SYMBOLS, 500) == generate(3, SYMBOLS, 500)
    assert generate(3, SYMBOLS, 500) != generate(4, SYMBOLS, 500)


def test_the_shares_are_as_promised() -> None:
    kinds = Counter(line.kind.partition(":")[0] for line in LINES)
    base = 12_000
    assert 0.015 * base < kinds["duplicate"] < 0.025 * base
    assert 0.007 * base < kinds["late"] < 0.014 * base
    assert 0.007 * base < kinds["malformed"] < 0.014 * base
    assert kinds["boundary"] > 20
    assert len(MALFORMED) >= 100
    malformed = [line.kind for line in LINES if line.kind.startswith("malformed")]
    # No kind comes again before every other has come.
    assert len(set(malformed)) == min(len(malformed), len(MALFORMED))


def test_every_line_is_what_it_says() -> None:
    for line in LINES:
        assert b"\n" not in line.value
        assert b"\r" not in line.value
        if line.kind.startswith("malformed"):
            with pytest.raises(Rejected):
                tick_of(line)
        else:
            tick_of(line)


def test_ticks_are_shuffled_but_on_time_unless_meant_to_be_late() -> None:
    delays = behind(LINES)
    assert all(delay <= 9_000 for kind, delay in delays if kind in ("tick", "delayed"))
    assert max(delay for kind, delay in delays if kind == "delayed") > 8_000
    assert {delay for kind, delay in delays if kind == "boundary"} == {10_000}
    late = [delay for kind, delay in delays if kind == "late"]
    assert sum(delay > 10_000 for delay in late) > 0.9 * len(late)
    assert 10_001 in late


def test_the_interesting_cases_occur() -> None:
    expected = evaluated(LINES)
    windows = [one for result in expected.stats.values() for one in result]
    assert any(one.size > 1 and one.spread == 0 for one in windows)
    lengths = [length for _, length in WINDOWS]
    times = sorted(time for symbol, time in expected.units if symbol == "BTCUSDT")
    assert max(after - before for before, after in pairwise(times)) > min(lengths)
    assert min(expected.units.values()) < 1_000
    assert max(expected.units.values()) > 10**17
    assert any(time % 100 for time in times)
    assert expected.late > 100
    assert expected.duplicates > 100
    assert {20_000} < set(expected.higher.values())
    # More than one date partition.
    assert len({time // 86_400_000 for _, time in expected.units}) == 2


def test_every_second_symbol_lags_behind() -> None:
    reached: dict[str, int] = {}
    for line in LINES:
        if not line.kind.startswith("malformed"):
            tick = tick_of(line)
            if tick.symbol in ("BTCUSDT", "SHIBUSDT"):
                break
            reached[tick.symbol] = tick.timestamp
    assert set(reached) == {"BIG", "ONE"}
    assert all(time >= START + 100_000 for time in reached.values())


def test_a_walk_has_each_timestamp_once_and_ascends() -> None:
    for style in range(4):
        walk = random_walk(1, "A", 3_000, style)
        assert len(walk) == 3_000
        assert all(one.timestamp < other.timestamp for one, other in pairwise(walk))
        assert all(0 < tick.units < 10**18 for tick in walk)


def test_files_come_back_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz"):
        write_lines(tmp_path / name, LINES)
        assert read_lines(tmp_path / name) == [line.value for line in LINES]
    first = (tmp_path / "a.jsonl.gz").read_bytes()
    write_lines(tmp_path / "a.jsonl.gz", LINES)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == first
    assert gzip.decompress(first) == (tmp_path / "a.jsonl").read_bytes()


def test_files_of_ticks_can_be_the_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walks = {symbol: random_walk(1, symbol, 2_000, 0, gaps=0) for symbol in ("A", "B")}
    bases = []
    for symbol, walk in walks.items():
        path = tmp_path / f"{symbol}.jsonl.gz"
        write_lines(path, [Line(canonical(tick), "tick") for tick in walk])
        bases += ["--base", str(path)]
    out = tmp_path / "out.jsonl"
    main(["--out", str(out), "--seed", "1", *bases, "--gaps", "0", "--clean"])
    assert read_ticks([out]) == sorted((tick for walk in walks.values() for tick in walk), key=lambda t: (t[1], t[0]))
    main(["--out", str(out), "--seed", "1", *bases, "--symbols", "B", "--ticks", "1000", "--gaps", "1"])
    symbols = {tick.symbol for tick in evaluate_file(out).prices.values()}
    assert symbols == {"B"}
    assert "malformed" in capsys.readouterr().out


def evaluate_file(path: Path) -> Expected:
    return evaluate([keyed(0, at, ARRIVAL, line) for at, line in enumerate(read_lines(path))])


def test_holes_are_longer_than_a_window() -> None:
    walk = random_walk(1, "A", 3_000, 0, gaps=0)
    left = with_holes(walk, seed=1, gaps=1)
    assert len(left) < len(walk)
    steps = [after.timestamp - before.timestamp for before, after in pairwise(left)]
    assert max(steps) > 30_000


def test_without_symbols_or_a_base_there_is_nothing_to_make(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "x"), "--seed", "1"])
