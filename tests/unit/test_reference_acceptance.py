"""The reference's own rule for what is a tick, against worked examples and against Python's JSON reader."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.acceptance import (
    FIRST_MS,
    LAST_MS,
    SCRIPTS,
    Rejected,
    Tick,
    accept,
    format_timestamp,
    milliseconds_of,
    number_end,
    read,
    right_key,
    units_of,
)
from tests.reference.spelling import MALFORMED, any_spelling, canonical, plain_number

NOON = milliseconds_of("2025-05-08T12:00:00Z")
EXAMPLE = b'{"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38.300000+00:00"}'
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def message(symbol: str = '"A"', price: str = "1", timestamp: str = '"2025-05-08T12:00:00Z"', more: str = "") -> bytes:
    return f'{{"symbol":{symbol},"price":{price},"timestamp":{timestamp}{more}}}'.encode()


def test_the_documented_example() -> None:
    assert read(EXAMPLE) == Tick("BTCUSDT", 1_746_677_558_300, 9_919_048_000_000)


@pytest.mark.parametrize(
    ("number", "units"),
    [
        ("0.00000001", 1),
        ("1e-8", 1),
        ("0.1E-7", 1),
        ("9999999999.99999999", 10**18 - 1),
        ("1", 10**8),
        ("1.50", 150_000_000),
        ("1.500000000000", 150_000_000),
        ("12e+2", 1200 * 10**8),
        ("1e0000000000000000000000000001", 10 * 10**8),
        ("100000000000e-2", 10**9 * 10**8),
        ("0.000000000000000000001e20", 10**7),
    ],
)
def test_prices_count_by_value(number: str, units: int) -> None:
    assert units_of(number) == units
    assert read(message(price=number)).units == units
    assert read(message(price=f'"{number}"')).units == units


@pytest.mark.parametrize(
    "number", ["0", "-1", "-0", "1e10", "0.000000001", "10000000000", "1e999999999999999999999999", "1e-400", "0e5"]
)
def test_prices_out_of_range(number: str) -> None:
    for price in (number, f'"{number}"'):
        with pytest.raises(Rejected, match="price"):
            read(message(price=price))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.001Z", 1),
        ("1970-01-01T00:00:00.001999999Z", 1),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T18:30:00.5-05:30", 500),
        ("1970-01-01T00:00:00-00:00", 0),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("1969-12-31T23:59:00.001-00:01", 1),
        ("2262-01-01T00:00:59.999+00:01", LAST_MS),
        ("2261-12-31T23:59:59.999Z", 9_214_646_399_999),
    ],
)
def test_timestamps_are_cut_to_milliseconds(text: str, moment: int) -> None:
    assert milliseconds_of(text) == moment


def test_timestamps_beyond_the_years_that_count() -> None:
    for text in (
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00+00:01",
        "2261-12-31T23:59:59-00:01",
        "0000-01-01T00:00:00Z",
    ):
        with pytest.raises(Rejected):
            milliseconds_of(text)


@given(st.integers(FIRST_MS, LAST_MS))
def test_timestamps_agree_with_datetime(moment: int) -> None:
    there = EPOCH + timedelta(milliseconds=moment)
    text = format_timestamp(moment)
    assert text == there.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert milliseconds_of(text) == moment


def test_sixty_seconds_ahead_is_the_limit() -> None:
    ahead = message(timestamp='"2025-05-08T12:01:00.000999Z"')
    assert accept(b"A", ahead, NOON).timestamp == NOON + 60_000
    with pytest.raises(Rejected, match="ahead"):
        accept(b"A", ahead, NOON - 1)


@pytest.mark.parametrize("key", [None, b"", b"B", b"A ", b"a", b"\xff", b'"A"', b"A\0"])
def test_the_key_is_the_symbol_and_nothing_else(key: bytes | None) -> None:
    assert accept(b"A", message(), NOON).symbol == "A"
    with pytest.raises(Rejected, match="key"):
        accept(key, message(), NOON)


@pytest.mark.parametrize("record", [None, -1, FIRST_MS - 1, LAST_MS + 1, 10**16, -(10**16), 2**63 - 1])
def test_a_record_has_a_time_of_these_years(record: int | None) -> None:
    assert accept(b"A", message(timestamp='"1970-01-01T00:00:00Z"'), FIRST_MS).timestamp == 0
    assert accept(b"A", message(), LAST_MS)
    with pytest.raises(Rejected, match="record"):
        accept(b"A", message(), record)


@pytest.mark.parametrize("border", sorted({border for script in SCRIPTS for border in script}))
def test_kana_han_and_hangul_are_letters_of_symbols(border: int) -> None:
    symbol = f"X{chr(border)}-1"
    assert read(message(symbol=f'"{symbol}"')).symbol == symbol
    assert read(message(symbol=f'"X\\u{border:04x}-1"')).symbol == symbol


@pytest.mark.parametrize(
    "value",
    [
        EXAMPLE + b" \t\r\n",
        message(symbol='"\\u0041"'),
        message(symbol='"' + "A" * 32 + '"'),
        message(symbol='"A.b_-9"'.replace("b", "B")),
        message(more=',"nested":{"symbol":1,"price":[[[]]],"a":{}},"list":[1,[2,{"x":[]}],{}],"y":null'),
        message(more=',"same":1,"same":2,"Symbol":0'),
        message(more=',"deep":' + "[" * 100_000 + "]" * 100_000),
        message(more=',"lone":"\\ud800"'),
        message(more=',"number":1e999999,"e":"\\n\\/\\\\"'),
        b'{"\\u0070rice":1,"timestamp":"2025-05-08T12:00:00Z","symbol":"A"}',
    ],
)
def test_legal_messages(value: bytes) -> None:
    read(value)


@pytest.mark.parametrize("kind", sorted(MALFORMED))
def test_every_malformed_kind_is_rejected_and_fits_one_line(kind: str) -> None:
    value = MALFORMED[kind](Tick("BTCUSDT", NOON - 123_456, 6_183_763_000_000))
    assert not {b"\n", b"\r"} & {value[at : at + 1] for at in range(len(value))}
    with pytest.raises(Rejected):
        accept(right_key(value), value, NOON)


@pytest.mark.parametrize(
    "value", [None, b"", b" ", b"{", b'{"symbol"', b'{"symbol":', b'{"a":[', b'{"a":{"b":1', b'{"a":"\\']
)
def test_nothing_or_half_a_message_is_rejected(value: bytes | None) -> None:
    with pytest.raises(Rejected):
        read(value)


@given(st.integers(1, 10**18 - 1), st.integers(0, NOON), st.integers())
def test_every_spelling_of_a_tick_is_that_tick(units: int, moment: int, seed: int) -> None:
    tick = Tick("1000SHIB.X_-", moment, units)
    assert read(canonical(tick)) == tick
    value = any_spelling(tick, Random(seed))
    assert read(value) == tick
    assert b"\n" not in value
    assert Decimal(plain_number(units)) == Decimal(units).scaleb(-8)


NUMBER_LIKE = st.text("0123456789+-.eE", min_size=1, max_size=8)


@given(NUMBER_LIKE)
def test_numbers_are_those_of_pythons_json(text: str) -> None:
    try:
        json.loads(text)
        legal = True
    except ValueError:
        legal = False
    assert (number_end(text, 0) == len(text)) == legal


def _plain_json(text: str) -> Any:
    def fail(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(text, parse_constant=fail)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(JSON_VALUES, st.booleans(), st.data())
def test_objects_are_those_of_pythons_json(value: object, plain: bool, data: st.DataObject) -> None:
    text = (
        f'{{"symbol":"A","price":1,"extra":{json.dumps(value, ensure_ascii=plain)},"timestamp":"2025-05-08T12:00:00Z"}}'
    )
    assert read(text.encode()).units == 10**8
    # One character put in, taken out or changed: both readers must agree about whether that is still JSON.
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from('{}[]",:\\0-.eutx \t\x01é'))
    broken = text[:at] + letter + text[at + data.draw(st.integers(0, 1)) :]
    try:
        _plain_json(broken)
        legal = True
    except ValueError:
        legal = False
    try:
        read(broken.encode())
        reason = ""
    except Rejected as rejected:
        reason = str(rejected)
    assert ("JSON" in reason) == (not legal or not broken.strip().startswith("{"))
