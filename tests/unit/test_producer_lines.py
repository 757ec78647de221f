"""Lines of a recording on their way out: keys, partitions, the shift to another time, and knowing a recording again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.lines import key_of, partition_of, shift_tick
from producer.recordings.errors import ResumeError
from producer.resume import Digest, OnTopic, Position, ReplayId, parse_header
from tickhouse.contract.validation import Tick, read_tick

LINE = b'{"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38.300000+00:00"}'


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (LINE, b"BTCUSDT"),
        (b' {"timestamp":"never","x":[],"symbol":"BTC\\u0055SDT"}\r', b"BTCUSDT"),
        (b'{"symbol":"BTCUSDT","x":' + b"1" * 6_000 + b"}", b"BTCUSDT"),
        (b'{"symbol":"BTCUSDT","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"BTCUSDT"),
        (b'{"symbol":"\xc3\xa9"}', "é".encode()),
        (b'{"symbol":""}', b""),
        (b'{"symbol":"a","symbol":"b"}', b"b"),
        (b'{"symbol":"BTCUSDT","price":NaN,"timestamp":7}', None),
        (b'{"symbol":"\\ud800"}', None),
        (b'{"symbol":7}', None),
        (b'{"symbol":["BTCUSDT"]}', None),
        (b'["BTCUSDT"]', None),
        (b'"BTCUSDT"', None),
        (LINE[:-1], None),
        (LINE + LINE, None),
        (b"\xff" + LINE, None),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_the_key_is_the_symbol_that_the_rules_reader_finds(line: bytes, key: bytes | None) -> None:
    assert key_of(line) == key


@given(st.binary())
def test_any_bytes_have_a_partition_that_does_not_change(line: bytes) -> None:
    key = key_of(line)
    first = partition_of(line, key, 4, lambda _key: 3)
    assert first in range(4)
    assert partition_of(line, key, 4, lambda _key: 3) == first


def test_lines_without_a_key_are_spread() -> None:
    assert {partition_of(b"%d" % number, None, 4, lambda _key: 0) for number in range(50)} == {0, 1, 2, 3}


def verdict(line: bytes) -> Tick:
    tick = read_tick(line)
    assert isinstance(tick, Tick)
    return tick


@pytest.mark.parametrize(
    ("line", "shifted"),
    [
        (LINE, LINE.replace(b"38.300000", b"40.800000")),
        (LINE.replace(b"300000+00:00", b"300456789Z"), LINE.replace(b"38.300000", b"40.800456")),
        (LINE.replace(b".300000+00:00", b"Z"), LINE.replace(b"38.300000", b"40.500000")),
        (
            b'{ "timestamp" : "2025-05-08T06:12:38.3+02:00", "price":1.50, "symbol":"X" }\r',
            b'{ "timestamp" : "2025-05-08T04:12:40.800000+00:00", "price":1.50, "symbol":"X" }\r',
        ),
        (
            b'{"\\u0074imest\\u0061mp":"2025-05-08T04:12:38\\u002e3Z","price":1e5,"symbol":"X"}',
            b'{"\\u0074imest\\u0061mp":"2025-05-08T04:12:40.800000+00:00","price":1e5,"symbol":"X"}',
        ),
        (
            b'{"a":{"timestamp":"2025-05-08T04:12:38.3Z"},"x":"timestamp","timestamp":"2025-05-08T04:12:38.3Z",'
            b'"price":"5","symbol":"X","\\"timestamp\\"":"2025-05-08T04:12:38.3Z"}',
            b'{"a":{"timestamp":"2025-05-08T04:12:38.3Z"},"x":"timestamp","timestamp":"2025-05-08T04:12:40.800000+00:00",'
            b'"price":"5","symbol":"X","\\"timestamp\\"":"2025-05-08T04:12:38.3Z"}',
        ),
    ],
)
def test_only_the_timestamp_of_a_tick_is_shifted_however_it_is_written(line: bytes, shifted: bytes) -> None:
    tick = verdict(line)
    assert shift_tick(line, tick.timestamp, 2_500_000) == shifted
    assert verdict(shifted) == tick._replace(timestamp=tick.timestamp + 2_500)


def test_a_time_that_cannot_be_written_stays() -> None:
    assert shift_tick(LINE, verdict(LINE).timestamp, 10**18) == LINE


SPELLINGS = {
    name: st.tuples(*(st.sampled_from([char, f"\\u{ord(char):04x}"]) for char in name)).map("".join)
    for name in ("symbol", "price", "timestamp")
}


@given(
    st.permutations(list(SPELLINGS)),
    st.fixed_dictionaries(SPELLINGS),
    st.datetimes().filter(lambda moment: 1970 <= moment.year < 2200),
    st.sampled_from(["", " ", "\t"]),
    st.integers(-(10**12), 10**12),
)
@settings(deadline=None)
def test_whatever_the_rule_takes_for_a_tick_is_shifted(
    order: list[str], names: dict[str, str], moment: object, blank: str, shift_ms: int
) -> None:
    values = {"symbol": '"X"', "price": "1.50", "timestamp": json.dumps(str(moment).replace(" ", "T") + "Z")}
    members = f",{blank}".join(f'{blank}"{names[name]}"{blank}:{blank}{values[name]}' for name in order)
    line = f'{{{members},"o":[{{"timestamp":"x"}}]}}'.encode()
    tick = verdict(line)
    if not 0 <= tick.timestamp + shift_ms < 7_258_118_400_000:  # the year 2200
        return
    shifted = verdict(shift_tick(line, tick.timestamp, shift_ms * 1_000))
    assert shifted == tick._replace(timestamp=tick.timestamp + shift_ms)


# Knowing a recording again


def replay_id(lines: list[bytes], mode: str = "recorded") -> ReplayId:
    digest = Digest()
    digest.add(lines)
    return ReplayId(digest.text(), digest.lines, mode)


@given(st.lists(st.binary(max_size=5), max_size=20), st.integers(1, 5), st.sets(st.integers(0, 25)))
def test_the_digest_of_the_first_lines_is_kept_on_the_way(lines: list[bytes], size: int, wanted: set[int]) -> None:
    digest = Digest(wanted)
    for at in range(0, len(lines), size):
        digest.add(lines[at : at + size])
    assert digest.text() == replay_id(lines).digest
    assert digest.kept == {n: replay_id(lines[:n]).digest for n in wanted if n <= len(lines) and lines}


@given(st.integers(1, 10**9), st.integers(1, 1_000), st.integers(-(10**17), 10**17))
def test_headers_read_back(line: int, partitions: int, shift: int) -> None:
    position = Position(ReplayId("0123456789abcdef", 7, "recorded"), partitions, line, shift)
    assert parse_header(position.header()) == position


def test_a_header_of_before_recordings_could_grow_is_read() -> None:
    assert parse_header(b"0123ab-now:4:17:-3") == Position(ReplayId("0123ab", None, "now"), 4, 17, -3)


@pytest.mark.parametrize("value", [b"", b"abc", b"abc-recorded:4:x:0", b"\xff", b"abc-recorded:4:1:0\n"])
def test_foreign_headers_are_none_of_ours(value: bytes) -> None:
    assert parse_header(value) is None


def test_what_is_reached_is_that_of_all_ids_of_a_recording() -> None:
    first, grown, other = replay_id([b"a"]), replay_id([b"a", b"b"]), replay_id([b"c"])
    on_topic = OnTopic(
        {
            first: {0: Position(first, 2, 1, 7)},
            grown: {0: Position(grown, 2, 2, 7), 1: Position(grown, 2, 5, 7)},
            other: {0: Position(other, 2, 90, 1), 1: Position(other, 3, 90, 1)},
        },
        {},
    )
    reached = on_topic.reached(2, {first, grown}.__contains__)
    assert (reached.lines, reached.shift) == ({0: 2, 1: 5}, 7)
    nothing = on_topic.reached(2, lambda _: False)
    assert (nothing.lines, nothing.shift) == ({0: 0, 1: 0}, None)
    with pytest.raises(ResumeError, match="3 partitions and it has 2 now"):
        on_topic.reached(2, {other}.__contains__)
