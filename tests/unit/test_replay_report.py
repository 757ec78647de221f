"""What is said of a recording before and after it is sent, in numbers that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.recordings.count import Count, Numbers
from producer.recordings.errors import EXAMPLE
from producer.recordings.recording import judge
from producer.recordings.report import after, before
from tests.unit.test_recordings import tick

START = 1_700_000_000_000
NOTHING = Numbers(0, 0, None, [], 0, None, None, 0, 0, 0, 0)


def count(lines: list[bytes], *, one_by_one: bool, sent_ms: int = START, lateness_ms: int = 10_000) -> Numbers:
    counted = Count(lateness_ms, {})
    verdicts = judge(lines)
    if not one_by_one:
        counted.add(1, verdicts, verdicts.timestamps, np.full(len(lines), sent_ms))
        return counted.numbers()
    for number, (line, at) in enumerate(zip(lines, verdicts.of_symbol.tolist(), strict=True)):
        symbol = verdicts.symbols[at].encode() if at >= 0 else None
        timestamp = int(verdicts.timestamps[number]) if at >= 0 else None
        counted.add_line(number + 1, line, symbol, timestamp, sent_ms)
    return counted.numbers()


LINES = st.one_of(
    st.sampled_from([b"", b"x", b'{"symbol":"A"}']),
    st.builds(tick, st.sampled_from(["A", "B"]), st.integers(START - 40_000, START + 70_000)),
)


@given(st.lists(LINES, max_size=60))
@settings(deadline=None)
def test_lines_counted_at_once_and_one_by_one_are_counted_alike(lines: list[bytes]) -> None:
    at_once = count(lines, one_by_one=False)
    assert count(lines, one_by_one=True) == at_once
    assert at_once.lines == len(lines) == at_once.ticks + at_once.rejects
    assert at_once.ticks == at_once.final + at_once.late + at_once.duplicates + at_once.waiting


def say(lines: list[bytes], already: int = 0, *, sort: bool = False) -> str:
    found = count(lines, one_by_one=False)
    return ". ".join(before("ticks", "JSON lines", already, found, lateness_seconds=10, sort=sort))


def test_the_example_is_a_tick() -> None:
    assert not judge([EXAMPLE.encode()]).reasons


def test_what_is_in_a_recording_is_told_before_it_is_sent() -> None:
    newest_first = [tick("A", START - at * 100) for at in range(600)]
    told = say(newest_first)
    assert "ticks (JSON lines): 600 ticks of A, from 2023-11-14T22:12:20.100Z to 2023-11-14T22:13:20.000Z" in told
    assert "499 ticks will be late and have no results: more than 10 s older than one of the same symbol before" in told
    assert "--sort does that" in told
    assert "late" not in say(newest_first[::-1])
    assert "line" not in say(newest_first).replace("JSON lines", "")
    assert "2 ticks of 2 symbols (A, B)" in say([tick("B", START), tick("A", START)])
    assert "7 symbols (A, B, C, D, E, …)" in say([tick(name, START) for name in "ABCDEFG"])


def test_what_needs_attention_is_told() -> None:
    told = say([tick("A", START), tick("A", START), tick("A", START), b"x", tick("A", START + 60_001), b""])
    assert "2 ticks repeat the symbol and the millisecond of an earlier one: of each, the first counts" in told
    assert "3 lines are no ticks, the first of them line 4 (value: not JSON): they go into the table rejects" in told
    assert "one of them (value" in say([tick("A", START), b"x", b""], sort=True)
    told = say([tick("A", START), tick("A", START + 60_001)], already=3)
    assert "Line 2 is no tick (timestamp: more than 60 s ahead when sent): it goes into the table rejects" in told
    assert "3 lines of it were sent before: it goes on behind them" in told


def test_ticks_that_are_late_in_any_order_are_told_apart() -> None:
    counted = Count(10_000, {"A": np.array([START + 30_000])})
    lines = [tick("A", START), tick("A", START + 50_000), tick("A", START + 30_000)]
    verdicts = judge(lines)
    counted.add(1, verdicts, verdicts.timestamps, np.full(3, START))
    told = ". ".join(before("ticks", "JSON lines", 0, counted.numbers(), lateness_seconds=10, sort=False))
    assert "1 tick will be late and have no results: more than 10 s older than one of the same symbol before" in told
    assert "1 tick will be late and have no results in any order: the topic has ticks" in told


@pytest.mark.parametrize(
    ("sent", "already", "told"),
    [
        (NOTHING, 0, "ticks is empty: there is nothing to send"),
        (NOTHING, 1, "ticks had been sent before, with its 1 line: nothing is sent"),
        (NOTHING, 1_000, "ticks had been sent before, with all 1,000 lines: nothing is sent"),
        (
            Numbers(1, 0, None, ["A"], 1, START, START, 0, 0, 0, 0),
            0,
            "1 message of ticks is delivered: 1 with results; 0 late; 0 duplicates; 0 rejected; 0 wait for later ticks",
        ),
        (
            Numbers(1_600, 5, (1, "x"), ["A"], 1_595, START, START, 579, 0, 11, 1),
            400,
            "1,600 messages of ticks are delivered: 1,004 with results; 579 late; 11 duplicates; 5 rejected; 1 waits "
            "for later ticks. 400 lines of it had been sent before. A tick has results once there are ticks of its "
            "symbol that are 10 s later. Why lines were rejected: "
            '`tickhouse sql "SELECT reason, count(*) FROM rejects GROUP BY reason"`',
        ),
    ],
)
def test_what_was_delivered_is_told(sent: Numbers, already: int, told: str) -> None:
    assert ". ".join(after("ticks", already, sent, lateness_seconds=10)) == told
