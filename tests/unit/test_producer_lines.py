"""Reading a recording: lines byte for byte, keys, partitions, times, the shift to another time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.lines import (
    LONGEST_LINE,
    RecordingError,
    inspect_line,
    parse_time,
    partition_of,
    read_lines,
    shift_line,
    survey,
)
from producer.resume import Position, parse_header

LINE = b'{"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38.300000+00:00"}'
TIME = 1_746_677_558_300_000


def file_with(folder: Path, content: bytes, zipped: bool = False) -> Path:
    path = folder / "recording"
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400).map(lambda content: content.replace(b"n", b"\n")), st.booleans())
def test_lines_end_at_newlines_and_nowhere_else(tmp_path: Path, content: bytes, zipped: bool) -> None:
    lines = list(read_lines(file_with(tmp_path, b"x\n" + content, zipped)))
    expected = (b"x\n" + content).split(b"\n")
    assert lines == (expected[:-1] if expected[-1] == b"" else expected)


def test_empty_lines_are_lines_and_the_last_newline_begins_none(tmp_path: Path) -> None:
    assert list(read_lines(file_with(tmp_path, b"\n\na\r\n\x0b\x85\xe2\x80\xa8\n"))) == [
        b"", b"", b"a\r", b"\x0b\x85\xe2\x80\xa8",
    ]  # fmt: skip
    assert list(read_lines(file_with(tmp_path, b""))) == []


def test_the_same_lines_are_the_same_recording_however_they_are_stored(tmp_path: Path) -> None:
    plain = survey(file_with(tmp_path, LINE + b"\nx\n"))
    assert plain.lines == 2
    assert survey(file_with(tmp_path, LINE + b"\nx\n", zipped=True)) == plain
    assert survey(file_with(tmp_path, LINE + b"\n\nx\n")) != plain
    assert survey(file_with(tmp_path, LINE + b"\ny\n")) != plain


def test_what_cannot_be_replayed_is_found_out_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no file"):
        survey(tmp_path / "none")
    with pytest.raises(RecordingError, match=r"line 2 .* longer"):
        survey(file_with(tmp_path, b"a\n" + b"b" * (LONGEST_LINE + 1) + b"\n"))
    assert survey(file_with(tmp_path, b"a\n" + b"b" * LONGEST_LINE + b"\n")).lines == 2
    cut = file_with(tmp_path, LINE * 1_000, zipped=True)
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(RecordingError, match="complete"):
        survey(cut)
    with pytest.raises(RecordingError):
        survey(tmp_path)


@pytest.mark.parametrize(
    ("line", "key", "time"),
    [
        (LINE, b"BTCUSDT", TIME),
        (LINE.replace(b":", b" : "), b"BTCUSDT", None),
        (b' {"timestamp":"2025-05-08T06:12:38.3+02:00","x":[],"symbol":"BTC\\u0055SDT"}\r', b"BTCUSDT", TIME),
        (b'{"symbol":"BTCUSDT","price":NaN,"timestamp":7}', b"BTCUSDT", None),
        (b'{"symbol":"BTCUSDT","x":' + b"1" * 6_000 + b"}", b"BTCUSDT", None),
        (b'{"symbol":"\xc3\xa9"}', "é".encode(), None),
        (b'{"symbol":""}', b"", None),
        (b'{"symbol":"a","symbol":"b"}', b"b", None),
        (b'{"symbol":"\\ud800"}', None, None),
        (b'{"symbol":7}', None, None),
        (b'{"symbol":1.5}', None, None),
        (b'{"symbol":["BTCUSDT"]}', None, None),
        (b'{"symbol":null,"timestamp":"2025-05-08T04:12:38.3Z"}', None, TIME),
        (b'["BTCUSDT"]', None, None),
        (b'"BTCUSDT"', None, None),
        (LINE[:-1], None, None),
        (LINE + LINE, None, None),
        (b"\xff" + LINE, None, None),
        (b"[" * 100_000, None, None),
        (b"", None, None),
    ],
)
def test_key_and_time_are_found_leniently(line: bytes, key: bytes | None, time: int | None) -> None:
    assert inspect_line(line) == (key, time)


# Spelled in many ways, each meaning the same: what the fast path does not know must come to the same key and time.
@given(
    st.from_regex(r"[A-Za-z0-9._-]{1,32}", fullmatch=True),
    st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,8})?", fullmatch=True),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
)
def test_the_fast_path_agrees_with_the_thorough_one(symbol: str, price: str, timestamp: str) -> None:
    line = f'{{"symbol":"{symbol}","price":{price},"timestamp":"{timestamp}"}}'.encode()
    try:
        json.loads(line)
    except ValueError:
        return  # 007 is not JSON: see below
    assert inspect_line(line) == inspect_line(b" " + line) == (symbol.encode(), parse_time(timestamp))


@given(st.binary())
def test_any_bytes_have_a_partition_that_does_not_change(line: bytes) -> None:
    key = inspect_line(line).key
    first = partition_of(line, key, 4, lambda _key: 3)
    assert first in range(4)
    assert partition_of(line, key, 4, lambda _key: 3) == first


def test_lines_without_a_key_are_spread() -> None:
    assert {partition_of(b"%d" % number, None, 4, lambda _key: 0) for number in range(50)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001999Z", 1),
        ("1970-01-01T00:00:00", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("0001-01-01T00:00:00+14:00", -62_135_647_200_000_000),
        ("2025-02-30T00:00:00Z", None),
        ("", None),
        ("now", None),
    ],
)
def test_times(text: str, time: int | None) -> None:
    assert parse_time(text) == time


@pytest.mark.parametrize(
    ("line", "shifted"),
    [
        (LINE, LINE.replace(b"38.300000", b"40.800000")),
        (
            b'{ "timestamp" : "2025-05-08T06:12:38.3+02:00", "price":1.50, "symbol":"X" }',
            b'{ "timestamp" : "2025-05-08T04:12:40.800000+00:00", "price":1.50, "symbol":"X" }',
        ),
        (LINE[:-1], LINE[:-1]),
        (b"", b""),
        (b'{"timestamp":7}', b'{"timestamp":7}'),
        (b'{"timestamp":"soon"}', b'{"timestamp":"soon"}'),
        (b'{"timestamp":"9999-12-31T23:59:59Z"}', b'{"timestamp":"9999-12-31T23:59:59Z"}'),
        (LINE[:-1] + b',"timestamp":"2025-05-08T04:12:38Z"}', LINE[:-1] + b',"timestamp":"2025-05-08T04:12:38Z"}'),
        (b'{"x":{"timestamp":"2025-05-08T04:12:38Z"}}', b'{"x":{"timestamp":"2025-05-08T04:12:38Z"}}'),
    ],
)
def test_only_the_timestamp_is_shifted_and_only_where_there_is_one(line: bytes, shifted: bytes) -> None:
    assert shift_line(line, 2_500_000) == shifted


@given(st.integers(1, 10**9), st.integers(1, 1_000), st.integers(-(10**17), 10**17))
def test_headers_read_back(line: int, partitions: int, shift: int) -> None:
    position = Position("0123456789abcdef-recorded", partitions, line, shift)
    assert parse_header(position.header()) == position


@pytest.mark.parametrize("value", [b"", b"abc", b"abc-recorded:4:x:0", b"\xff", b"abc-recorded:4:1:0\n"])
def test_foreign_headers_are_none_of_ours(value: bytes) -> None:
    assert parse_header(value) is None
