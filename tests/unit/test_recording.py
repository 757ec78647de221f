"""What is said of a recording that was sent, and that it is counted by the rule that decides what a tick is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from orchestration import recording
from orchestration.recording import EXAMPLE, Recording, look_through, sentences
from producer.lines import RecordingError
from tickhouse.contract.validation import Tick, accept, parse_timestamp

SENT = parse_timestamp("2025-05-08T04:30:00Z")
FILE = Path("ticks.jsonl")


def tick(symbol: str, second: float) -> str:
    minute, second = divmod(second, 60)
    timestamp = f"2025-05-08T04:{int(minute):02}:{second:06.3f}Z"
    return json.dumps({"symbol": symbol, "price": 5, "timestamp": timestamp})


def look(folder: Path, lines: list[str], sent_ms: int | None = SENT) -> Recording:
    file = folder / "ticks.jsonl"
    file.write_text("".join(line + "\n" for line in lines))
    return look_through(file, sent_ms, 10_000)


def say(delivered: int, found: Recording, *, shifted: bool = False, speed: str = "max") -> str:
    return " ".join(sentences(FILE, delivered, found, lateness_seconds=10, shifted=shifted, speed=speed))


def test_the_example_is_a_tick() -> None:
    assert SENT is not None
    assert isinstance(accept(EXAMPLE.encode(), SENT), Tick)


def test_what_is_no_tick_is_counted_and_the_first_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_LINES_AT_ONCE", 2)
    lines = [tick("A", 1), tick("A", 2), tick("A", 3), '{"symbol":"A","price":1}', "", "nonsense", tick("A", 3_500)]
    found = look(tmp_path, lines)
    assert (found.lines, found.rejects, found.first_reject) == (7, 4, (4, "timestamp: missing"))
    zipped = tmp_path / "ticks.jsonl.gz"
    zipped.write_bytes(gzip.compress((tmp_path / "ticks.jsonl").read_bytes()))
    assert look_through(zipped, SENT, 10_000) == found
    assert look(tmp_path, lines, sent_ms=None).rejects == 3, "how far it is ahead when shifted is not known"


def test_what_waits_for_later_ticks_is_counted_by_symbol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_LINES_AT_ONCE", 7)
    lines = [tick(symbol, n / 10) for n in range(300) for symbol in ("A", "B")]
    lines += [tick("A", 29.9), tick("B", 12), tick("C", 1)]  # a duplicate, a late one, and a symbol of one tick
    found = look(tmp_path, lines)
    assert found.not_final == 100 + 100 + 1
    assert found.span_ms == 29_900
    assert look(tmp_path, [*lines, tick("A", 39.9)]).not_final == 1 + 100 + 1


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="there is no file"):
        look_through(tmp_path / "none", SENT, 10_000)


@pytest.mark.parametrize(
    ("delivered", "found", "told"),
    [
        (5, Recording(5, 0, None, 0, 0), "5 messages of ticks.jsonl are delivered"),
        (1, Recording(1, 0, None, 0, 0), "1 message of ticks.jsonl is delivered"),
        (
            2,
            Recording(5, 0, None, 0, 0),
            "2 messages of ticks.jsonl are delivered; 3 of its lines had been sent before",
        ),
        (0, Recording(5, 0, None, 0, 0), "ticks.jsonl had been sent before, with all 5 lines: nothing is sent"),
        (0, Recording(1, 0, None, 0, 0), "ticks.jsonl had been sent before, with its 1 line: nothing is sent"),
        (0, Recording(0, 0, None, 0, 0), "ticks.jsonl is empty: there is nothing to send"),
    ],
)
def test_what_was_delivered_is_told(delivered: int, found: Recording, told: str) -> None:
    assert say(delivered, found) == told


def test_what_needs_attention_is_told() -> None:
    assert "Line 1 is no tick (timestamp: missing): it goes into the table rejects" in say(
        1, Recording(1, 1, (1, "timestamp: missing"), 0, 0)
    )
    assert "3 lines are no ticks, the first of them line 2 (value: not JSON): they go" in say(
        9, Recording(9, 3, (2, "value: not JSON"), 0, 0)
    )
    assert "The last 100 ticks wait for later ones" in say(9, Recording(9, 0, None, 100, 0))
    assert "that are 10 s later" in say(9, Recording(9, 0, None, 1, 0))


@pytest.mark.parametrize(
    ("speed", "span_ms", "ahead"),
    [("max", 60_000, False), ("max", 60_001, True), ("1", 900_000, False), ("2", 120_000, False), ("2", 130_000, True)],
)
def test_shifted_timestamps_that_run_ahead_of_the_clock_are_told(speed: str, span_ms: int, ahead: bool) -> None:
    found = Recording(9, 0, None, 0, span_ms)
    assert ("run ahead of the clock" in say(9, found, shifted=True, speed=speed)) is ahead
    assert "ahead" not in say(9, found, speed=speed)
