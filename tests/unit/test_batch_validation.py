"""The accept rule on whole batches: what is read by columns, and what must not be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batch_verdicts import batch_verdicts
from tests.reference.fuzz import fuzz
from tickhouse.contract import batch_validation
from tickhouse.contract.batch_validation import accept_batch, read_batch
from tickhouse.contract.validation import Rejection, Tick, accept, read_tick

NOW = 1_746_677_558_300  # 2025-05-08T04:12:38.300Z
LATEST = 9_214_646_399_999
PARTS = ("BTCUSDT", "99190.48", "2025-05-08T04:12:38.300000+00:00")
TICK = Tick("BTCUSDT", 9_919_048_000_000, NOW)


def message(symbol: str, price: str, timestamp: str, blank: str = "", quote: str = "") -> bytes:
    members = (f'"symbol":{blank}"{symbol}"', f'"price":{blank}{quote}{price}{quote}')
    return f'{{{members[0]},{blank}{members[1]},{blank}"timestamp":{blank}"{timestamp}"}}'.encode()


GOOD = message(*PARTS)


def same_as_one_by_one(
    values: Sequence[bytes | None],
    record_timestamps: Sequence[int | None],
    keys: Sequence[bytes | None] | None = None,
) -> list[Tick | Rejection]:
    """The verdicts on a batch, once they are found to be those of the rule for one message.

    Without `keys` the messages have those that they must have.
    """
    keys = keys if keys is not None else [right_key(value) for value in values]
    messages = list(zip(keys, values, record_timestamps, strict=True))
    verdicts = batch_verdicts(*zip(*messages, strict=True)) if messages else batch_verdicts([], [], [])
    for message, found in zip(messages, verdicts, strict=True):
        assert found == accept(*message), message
    read = read_batch(pa.array(values, pa.binary()))
    alone = [read_tick(value) for value in values]
    assert read.reasons == {at: one.reason for at, one in enumerate(alone) if isinstance(one, Rejection)}
    return verdicts


def right_key(value: bytes | None) -> bytes | None:
    tick = read_tick(value)
    return tick.symbol.encode() if isinstance(tick, Tick) else None


def test_a_hundred_thousand_messages_get_the_verdicts_that_they_get_one_by_one() -> None:
    keys, values, record_timestamps = zip(*fuzz(1, 100_000), strict=True)
    verdicts = same_as_one_by_one(values, record_timestamps, keys)
    accepted = sum(isinstance(verdict, Tick) for verdict in verdicts)
    assert 0.3 < accepted / len(verdicts) < 0.7


def test_every_letter_of_a_message_counts() -> None:
    values: list[bytes | None] = []
    layouts = [message(*PARTS, blank, quote) for blank in ("", " ") for quote in ("", '"')]
    for value in [
        *layouts,
        message("A", "7", "2024-02-29T23:59:59Z"),
        message("A.B", "0.5", "2025-05-08T04:12:38.3-05:30"),
    ]:
        for at in range(len(value) + 1):
            values += [value[:at], value[:at] + value[at + 1 :], value[:at] + value[at : at + 1] + value[at:]]
            values += [value[:at] + bytes([letter]) + value[at + 1 :] for letter in range(256)]
            values += [value[:at] + bytes([letter]) + value[at:] for letter in b'\n\r\0 \t"\\.-+0eE\xff\xc3']
    verdicts = same_as_one_by_one(values, [NOW] * len(values))
    assert {type(verdict) for verdict in verdicts} == {Tick, Rejection}


def test_every_day_and_every_limit_of_a_time() -> None:
    years = (
        "0000",
        "0001",
        "0004",
        "0100",
        "1600",
        "1900",
        "1969",
        "1970",
        "2000",
        "2023",
        "2024",
        "2100",
        "2261",
        "2262",
        "9999",
    )
    days = [f"{year}-{month:02}-{day:02}" for year in years for month in range(14) for day in range(33)]
    clocks = [
        f"{hour}:{minute}:{second}" for hour in ("00", "23", "24") for minute in ("59", "60") for second in ("59", "60")
    ]
    zones = ("Z", "+00:00", "-00:00", "+00:01", "-00:01", "+23:59", "-23:59", "+24:00", "-12:60")
    fractions = ("", ".", *("." + "987654321"[:places] for places in range(1, 10)), ".0000000009")
    texts = [f"{day}T{clock}Z" for day in days for clock in ("00:00:00", "23:59:59.999")]
    texts += [f"{day}T{clock}{zone}" for day in days[::100] + days[-40:] for clock in clocks for zone in zones]
    texts += [f"2025-05-08T04:12:38{fraction}{zone}" for fraction in fractions for zone in zones]
    edges = ("0000-12-31", "0001-01-01", "1969-12-31", "1970-01-01", "2261-12-31", "2262-01-01", "9999-12-31")
    texts += [f"{day}T{clock}{zone}" for day in edges for clock in ("00:00:00", "23:59:59.999") for zone in zones]
    for record_timestamp in (NOW, LATEST):
        same_as_one_by_one([message("A", "1", text) for text in texts], [record_timestamp] * len(texts))


def test_every_shape_of_a_price() -> None:
    wholes = (
        "",
        "0",
        "00",
        "1",
        "01",
        "9",
        "10",
        "12345678",
        "123456789",
        "9999999999",
        "10000000000",
        "-0",
        "-1",
        "+1",
    )
    fractions = ("", ".", ".0", ".00000000", ".000000000", ".1", ".00000001", ".99999999", ".123456789", ".1.2", ".-1")
    exponents = ("", "e0", "e5", "E-8", "e", "e+", "e+1")
    texts = [a + b + c for a in wholes for b in fractions for c in exponents]
    values = [
        message("A", text, PARTS[2], blank, quote) for text in texts for blank in ("", " ") for quote in ("", '"')
    ]
    same_as_one_by_one(values, [NOW] * len(values))


@pytest.mark.parametrize("ahead", [-60_001, -60_000, -59_999, 0])
def test_how_far_ahead_a_tick_may_be(ahead: int) -> None:
    same_as_one_by_one([GOOD, GOOD], [NOW + ahead, NOW])


def test_no_message_is_read_on_into_the_next() -> None:
    pieces = [[GOOD[:cut], GOOD[cut:]] for cut in range(len(GOOD) + 1)]
    verdicts = same_as_one_by_one([piece for both in pieces for piece in both], [NOW] * 2 * len(pieces))
    assert verdicts.count(TICK) == 2, "whole at the first cut and at the last"


def test_tombstones_slices_and_nothing_at_all() -> None:
    assert batch_verdicts([], [], []) == []
    tombstone = Rejection("tombstone: no value")
    assert batch_verdicts([b"BTCUSDT"] * 3, [None, GOOD, None], [NOW] * 3) == [tombstone, TICK, tombstone]
    sliced = pa.array([b"{}", None, GOOD, GOOD[:-1]], pa.binary()).slice(1, 2)
    keys = pa.array([b"A", b"BTCUSDT", b"BTCUSDT"], pa.binary()).slice(1, 2)
    verdicts = accept_batch(keys, sliced, np.array([NOW, NOW]))
    assert (verdicts.symbols, verdicts.of_symbol.tolist()) == (["BTCUSDT"], [-1, 0])


def test_ticks_are_grouped_by_symbol_in_order() -> None:
    random = Random(3)
    names = [random.choice(("A", "B.C", "X" * 32)) for _ in range(500)]
    spellings = [message(name, "2", PARTS[2], random.choice(("", " ", "  "))) for name in names]
    keys = pa.array([*(name.encode() for name in names), b"A"])
    verdicts = accept_batch(keys, pa.array([*spellings, b"no tick"]), np.full(501, NOW))
    groups = {symbol: positions.tolist() for symbol, positions in verdicts.ticks_by_symbol()}
    assert groups == {name: [at for at, each in enumerate(names) if each == name] for name in set(names)}
    assert list(verdicts.reasons) == [500]


def test_what_producers_write_is_read_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(value: bytes | None) -> Tick:
        raise AssertionError(f"{value!r} went to the rule for one message")

    by_json = json.dumps({"symbol": PARTS[0], "price": float(PARTS[1]), "timestamp": PARTS[2]}).encode()
    times = ("2025-05-08T04:12:38.3Z", "2025-05-08T04:12:38.300999999Z", "2025-05-08T06:12:38.30+02:00")
    values = [GOOD, by_json, message(*PARTS, quote='"'), *(message(*PARTS[:2], time) for time in times)]
    monkeypatch.setattr(batch_validation, "read_tick", refuse)
    monkeypatch.setattr(batch_validation, "accept", refuse)
    assert batch_verdicts([b"BTCUSDT"] * len(values), values, [NOW] * len(values)) == [TICK] * len(values)


def test_what_the_columns_do_not_foresee_is_judged_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(values: pa.Array) -> None:
        raise MemoryError("unforeseen")

    messages = list(fuzz(2, 500))
    alone = [accept(*message) for message in messages]
    monkeypatch.setattr(batch_validation, "_read", fail)
    assert batch_verdicts(*zip(*messages, strict=True)) == alone
    read = read_batch(pa.array([message.value for message in messages], pa.binary()))
    assert read.of_symbol.tolist().count(-1) == len(read.reasons)
    assert "one by one" in caplog.text


@st.composite
def near_messages(draw: st.DrawFn) -> bytes:
    price = st.from_regex(r"[0-9]{1,11}(\.[0-9]{0,9})?", fullmatch=True)
    time = st.from_regex(
        r"(000[01]|19[67][0-9]|202[3-5]|226[0-3]|9999)-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
        r"(\.[0-9]{0,10})?(Z|[-+][0-2][0-9]:[0-6][0-9])",
        fullmatch=True,
    )
    symbol = st.from_regex(r"[A-Z0-9._-]{0,33}", fullmatch=True)
    blank, quote = draw(st.sampled_from(["", " "])), draw(st.sampled_from(["", '"']))
    return message(draw(symbol), draw(price), draw(time), blank, quote)


@given(st.lists(near_messages() | st.none() | st.binary(max_size=5), max_size=8), st.sampled_from([0, NOW, LATEST]))
@settings(max_examples=1_000, deadline=None)
def test_any_batch_gets_the_verdicts_of_its_messages(values: list[bytes | None], record_timestamp: int) -> None:
    same_as_one_by_one(values, [record_timestamp] * len(values))
