"""The accept/reject rule: about one message, and about the same messages as a batch."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.batch_verdicts import batch_verdicts
from tickhouse.contract import validation
from tickhouse.contract.names import SYMBOL_PATTERN, price_text
from tickhouse.contract.validation import END_MS, NO_RECORD_TIME, Rejection, Tick

NOW = 1_746_677_558_300  # 2025-05-08T04:12:38.300Z
GOOD = b'{"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38.300000+00:00"}'
TICK = Tick("BTCUSDT", 9_919_048_000_000, NOW)


def message(symbol: str = '"BTCUSDT"', price: str = "99190.48", timestamp: str = '"2025-05-08T04:12:38.3Z"') -> bytes:
    return f'{{"symbol":{symbol},"price":{price},"timestamp":{timestamp}}}'.encode()


def accept(value: bytes | None, record_timestamp: int | None = NOW, key: bytes | None = b"BTCUSDT") -> Tick | Rejection:
    """The verdict on one message, which must be the same in a batch."""
    verdict = validation.accept(key, value, record_timestamp)
    assert batch_verdicts([key], [value], [record_timestamp]) == [verdict]
    return verdict


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        message(),
        message(price='"99190.48"'),
        message(price="9.919048e4"),
        message(price="9919048E-2"),
        message(price="99190.480000000000"),
        message(price="0.0000000009919048E+14"),
        message(price="9919048" + "0" * 5_000 + "e-5002"),
        message(timestamp='"2025-05-08T06:12:38.300999999+02:00"'),
        message(timestamp='"2025-05-07T22:42:38.30-05:30"'),
        b' {"timestamp":"2025-05-08T04:12:38.300Z", "x":[{"a":2,"a":3}],"price":99190.48,"symbol":"BTCUSDT"}\n',
        b'{"\\u0073ymbol":"BTC\\u0055SDT","price":99190.48,"timestamp":"2025-05-08T04:12:38.300Z","x":1,"x":2}',
        GOOD[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        GOOD[:-1] + b',"x":"\\ud800"}',
        message(price="0.9919048e" + "0" * 5_000 + "5"),
        message(price="991904800e-000000000000000000004"),
    ],
)
def test_accepted(value: bytes) -> None:
    assert accept(value) == TICK


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "value: not JSON"),
        (b"\xff\xfe", "value: not UTF-8"),
        (b"\xef\xbb\xbf" + GOOD, "value: not JSON"),
        (GOOD + b"x", "value: not JSON"),
        (GOOD + GOOD, "value: not JSON"),
        (b"[" + GOOD + b"]", "value: not a JSON object"),
        (b'"BTCUSDT"', "value: not a JSON object"),
        (b"17", "value: not a JSON object"),
        (b"NaN", "value: not JSON"),
        (b'{"\\u":1}', "value: not JSON"),
        (b'{"x":1.', "value: not JSON"),
        (GOOD[:-1] + b',"x":1.}', "value: not JSON"),
        (GOOD[:-1] + b',"x":1e}', "value: not JSON"),
        (GOOD[:-1] + b',"x":"\\u12 4"}', "value: not JSON"),
        (GOOD[:-1] + b',"x":"\\u+123"}', "value: not JSON"),
        (GOOD[:-1] + b',"x":"\\u00_1"}', "value: not JSON"),
        (GOOD[:-1] + b',"x":"' + b"\\n" * 450_000 + b'\x00"}', "value: not JSON"),
        (GOOD.replace(b'"', b"'"), "value: not JSON"),
        (GOOD[:-1] + b",}", "value: not JSON"),
        (GOOD[:-1] + b',"x":NaN}', "value: not JSON"),
        (GOOD[:-1] + b',"x":"\n"}', "value: not JSON"),
        (GOOD[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 99_999 + b"}", "value: not JSON"),
        (GOOD[:-1] + b',"price":1}', "price: occurs more than once"),
        (GOOD[:-1] + b',"\\u0070rice":1}', "price: occurs more than once"),
        (b'{"symbol":"BTCUSDT","price":1}', "timestamp: missing"),
        (b"{}", "symbol: missing"),
        (message(symbol='""'), "symbol"),
        (message(symbol='"btcusdt"'), "symbol"),
        (message(symbol='"BTC USDT"'), "symbol"),
        (message(symbol='"BTCUSDT\\n"'), "symbol"),
        (message(symbol='"' + "A" * 33 + '"'), "symbol"),
        (message(symbol="123"), "symbol"),
        (message(symbol="null"), "symbol"),
        (message(symbol='["A"]'), "symbol"),
        (message(price="0"), "price"),
        (message(price="-1"), "price"),
        (message(price="-0.0"), "price"),
        (message(price="null"), "price"),
        (message(price="true"), "price"),
        (message(price='""'), "price"),
        (message(price='" 1"'), "price"),
        (message(price='"+1"'), "price"),
        (message(price='"1_0"'), "price"),
        (message(price='"NaN"'), "price"),
        (message(price='"0x10"'), "price"),
        (message(price='"01"'), "price"),
        (message(price='"\\u0661"'), "price"),
        (message(price="[1]"), "price"),
        (message(price="1e10"), "price"),
        (message(price="10000000000"), "price"),
        (message(price="0.000000001"), "price"),
        (message(price="1.123456789"), "price"),
        (message(price="1e999999999999"), "price"),
        (message(price="1e-999999999999"), "price"),
        (message(price="1e9999999999999999999"), "price"),
        (message(price="1e-9999999999999999999"), "price"),
        (message(price="1e" + "9" * 5_000), "price"),
        (message(price="0e5"), "price"),
        (message(price="01"), "value: not JSON"),
        (message(price=".5"), "value: not JSON"),
        (message(timestamp="1746677558300"), "timestamp: not a string"),
        (message(timestamp="null"), "timestamp: not a string"),
        (message(timestamp='"2025-05-08 04:12:38Z"'), "timestamp"),
        (message(timestamp='"2025-05-08T04:12Z"'), "timestamp"),
        (message(timestamp='"2025-05-08T04:12:38"'), "timestamp"),
        (message(timestamp='"2025-05-08T04:12:38.Z"'), "timestamp"),
        (message(timestamp='"2025-05-08T04:12:38.1234567890Z"'), "timestamp"),
        (message(timestamp='"2025-05-08t04:12:38z"'), "timestamp"),
        (message(timestamp='"2025-05-08T04:12:38+0000"'), "timestamp"),
        (message(timestamp='"2025-05-08T04:12:38+24:00"'), "timestamp"),
        (message(timestamp='"2025-02-29T04:12:38Z"'), "timestamp"),
        (message(timestamp='"2025-05-08T24:00:00Z"'), "timestamp"),
        (message(timestamp='"2016-12-31T23:59:60Z"'), "timestamp"),
        (message(timestamp='"1970-01-01T00:00:00+00:01"'), "timestamp: no such time"),
        (message(timestamp='"1969-12-31T23:59:59.999Z"'), "timestamp: no such time"),
        (message(timestamp='"2262-01-01T00:00:00Z"'), "timestamp: no such time"),
        (message(timestamp='"2261-12-31T23:59:59.999-00:01"'), "timestamp: no such time"),
        (message(timestamp='"0001-01-01T00:00:00+00:01"'), "timestamp"),
        (message(timestamp='"0000-12-31T23:59:59.999Z"'), "timestamp"),
        (message(timestamp='"0000-12-31T23:59:59.999+00:00"'), "timestamp"),
        (message(timestamp='"9999-12-31T23:59:59-00:01"'), "timestamp"),
        (message(timestamp='"2025-05-08T04:13:38.301Z"'), "timestamp: more than 60 s ahead"),
    ],
)
def test_rejected_with_a_reason(value: bytes | None, reason: str) -> None:
    verdict = accept(value)
    assert isinstance(verdict, Rejection)
    assert verdict.reason.startswith(reason)


def test_limits_are_inclusive() -> None:
    assert accept(message(timestamp='"2025-05-08T04:13:38.300999Z"')) == TICK._replace(timestamp=NOW + 60_000)
    assert accept(message(price="9999999999.99999999")) == TICK._replace(price=10**18 - 1)
    assert accept(message(price="0.00000001")) == TICK._replace(price=1)
    assert accept(message(symbol='"' + "A" * 32 + '"'), key=b"A" * 32) == TICK._replace(symbol="A" * 32)
    for spelling in ("1970-01-01T00:00:00Z", "1970-01-01T23:59:00+23:59", "1969-12-31T00:01:00-23:59"):
        assert accept(message(timestamp=f'"{spelling}"')) == TICK._replace(timestamp=0)
    last = TICK._replace(timestamp=END_MS - 1)
    for spelling in ("2261-12-31T23:59:59.999999999Z", "2262-01-01T00:59:59.999+01:00"):
        assert accept(message(timestamp=f'"{spelling}"'), END_MS - 60_001) == last


@pytest.mark.parametrize(
    ("first", "last"),
    [("\u3041", "\u3096"), ("\u30a1", "\u30fa"), ("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uac00", "\ud7a3")],
)
def test_symbols_in_other_scripts(first: str, last: str) -> None:
    for symbol in (first, last, f"X{first}-{last}", first * 32):
        for literal in (f'"{symbol}"', json.dumps(symbol)):
            assert accept(message(symbol=literal), key=symbol.encode()) == TICK._replace(symbol=symbol)
    for letter in (chr(ord(first) - 1), chr(ord(last) + 1), first * 33):
        verdict = accept(message(symbol=f'"{letter}"'), key=letter.encode())
        assert isinstance(verdict, Rejection)
        assert verdict.reason.startswith("symbol")


def test_no_other_letter_of_any_unicode_table_is_one_of_a_symbol() -> None:
    pattern = re.compile(SYMBOL_PATTERN)
    taken = sum(pattern.fullmatch(chr(code)) is not None for code in range(sys.maxunicode + 1))
    assert taken == 39 + 86 + 90 + 6_592 + 20_992 + 11_172


@pytest.mark.parametrize(
    "key", [None, b"", b"BTCUSD", b"BTCUSDT ", b"btcusdt", b"\xff", b'"BTCUSDT"', "BTCUSDT".encode("utf-16")]
)
def test_a_key_that_is_not_the_symbol(key: bytes | None) -> None:
    for value in (GOOD, b" " + GOOD):
        assert accept(value, key=key) == Rejection("key: not the symbol")


@pytest.mark.parametrize(
    "record_timestamp", [None, -1, -(10**16), 10**16, END_MS, 2**63 - 1, -(2**63), (2**63 - 1) // 1_000 + 1]
)
def test_a_record_time_that_there_is_not_or_that_no_engine_holds(record_timestamp: int | None) -> None:
    for value in (GOOD, b" " + GOOD):
        assert accept(value, record_timestamp) == NO_RECORD_TIME
    assert accept(message(timestamp='"1970-01-01T00:00:00Z"'), 0) == TICK._replace(timestamp=0)


def test_what_the_rule_does_not_foresee_is_a_reject_that_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(text: str) -> None:
        raise RecursionError("unforeseen")

    monkeypatch.setattr(validation, "object_members", fail)
    expected = Rejection("internal: RecursionError: unforeseen")
    assert accept(b" " + GOOD) == validation.read_tick(b" " + GOOD) == expected
    assert "BTCUSDT" in caplog.text


def test_the_depth_of_the_calls_changes_no_verdict() -> None:
    deep = GOOD[:-1] + b',"x":' + b"[" * 900 + b"]" * 900 + b"}"

    def called(depth: int) -> Tick | Rejection:
        return called(depth - 1) if depth else accept(deep, NOW)

    assert called(0) == called(sys.getrecursionlimit() // 2) == TICK


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_nothing_raises(value: bytes) -> None:
    assert isinstance(accept(value), Tick | Rejection)


@given(st.decimals("0.00000001", "9999999999.99999999", places=8))
def test_both_paths_read_a_price_alike(price: Decimal) -> None:
    text = f"{price:f}"
    canonical = accept(message(price=text), NOW)
    assert canonical == accept(b" " + message(price=text), NOW)
    assert isinstance(canonical, Tick)
    assert Decimal(canonical.price) == price * 10**8
    assert price_text(canonical.price) == text
