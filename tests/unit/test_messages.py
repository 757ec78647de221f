"""The JSON forms of results: what goes out is strict JSON, and statistics are read back to the bit."""

import json
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tickhouse.contract.encoding
from tickhouse.contract.decoding import Results, read_results, table_rows
from tickhouse.contract.encoding import form_messages, pack_results, portions
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, WINDOWS, ZSCORE_TOPIC
from tickhouse.contract.validation import END_MS

NOW = 1_746_677_558_300
FIRST_MS, LAST_MS = 0, END_MS - 1


def messages(topic: str, *columns: Any) -> list[bytes]:
    """The messages of one symbol's results."""
    symbols, formed = form_messages(topic, [("BTCUSDT", pack_results(*columns))])
    assert symbols == ["BTCUSDT"] * len(formed)
    return formed


def read_back(topic: str, values: Sequence[bytes | None], key: bytes | None = b"BTCUSDT") -> Results:
    return read_results(topic, pa.array([key] * len(values), pa.binary()), pa.array(values, pa.binary()))


def test_messages_are_strict_json_in_the_stated_order() -> None:
    times = np.array([NOW, NOW + 100])
    averages = np.full((6, 2), 99_329.18)
    deviations = np.array([[np.nan, 12.04]] * 6)
    counts = np.array([[1, 2]] * 6)
    moving = messages(MOVING_TOPIC, times, averages, deviations, counts)
    windows = [f'{{"window":"{window}","avg_price":99329.18,"std_price":null,"count":1}}' for window in WINDOWS]
    assert moving[0].decode() == (
        f'{{"timestamp":"2025-05-08T04:12:38.300Z","symbol":"BTCUSDT","stats":[{",".join(windows)}]}}'
    )
    read = read_back(MOVING_TOPIC, moving)
    assert (read.symbols.to_pylist(), read.timestamps.tolist()) == (["BTCUSDT"] * 2, [NOW, NOW + 100])
    for found, right in zip(read.columns, (averages, deviations, counts), strict=True):
        assert np.array_equal(found, right, equal_nan=True)
    scores = messages(ZSCORE_TOPIC, times, deviations)
    windows = [f'{{"window":"{window}","zscore_price":null}}' for window in WINDOWS]
    assert scores[0].decode() == (
        f'{{"timestamp":"2025-05-08T04:12:38.300Z","symbol":"BTCUSDT","z_scores":[{",".join(windows)}]}}'
    )
    assert messages(HIGHER_TOPIC, times, np.array([8_258, 20_000])) == [
        b'{"timestamp":"2025-05-08T04:12:38.300Z","symbol":"BTCUSDT","higher_window":8.258}',
        b'{"timestamp":"2025-05-08T04:12:38.400Z","symbol":"BTCUSDT","higher_window":20.0}',
    ]


def test_results_of_many_symbols_keep_their_order() -> None:
    results = [
        ("B", pack_results(np.array([NOW, NOW + 1]), np.array([1, 2]))),
        ("C", pack_results(np.array([], dtype=np.int64), np.array([], dtype=np.int64))),
        ("A", pack_results(np.array([NOW]), np.array([3]))),
    ]
    symbols, formed = form_messages(HIGHER_TOPIC, results)
    assert symbols == ["B", "B", "A"] == [json.loads(message)["symbol"] for message in formed]
    assert [json.loads(message)["higher_window"] for message in formed] == [0.001, 0.002, 0.003]
    assert form_messages(HIGHER_TOPIC, results[1:2]) == form_messages(HIGHER_TOPIC, []) == ([], [])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_portions_are_all_results_in_their_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickhouse.contract.encoding, "_MESSAGES", 3)
    sizes = {"B": count, "C": 0, "A": 2, "D": count}
    results = [
        (symbol, pack_results(np.arange(size), np.arange(size) + 10 * len(symbol))) for symbol, size in sizes.items()
    ]
    parts = [form_messages(HIGHER_TOPIC, portion) for portion in portions(HIGHER_TOPIC, results)]
    whole = form_messages(HIGHER_TOPIC, results)
    assert ([symbol for symbols, _ in parts for symbol in symbols], [m for _, some in parts for m in some]) == whole
    assert all(3 <= len(symbols) <= 5 for symbols, _ in parts[:-1])
    assert list(portions(HIGHER_TOPIC, [])) == []


@given(st.lists(st.floats(allow_infinity=False), min_size=1, max_size=8))
def test_every_number_is_read_back_as_the_same_double(values: list[float]) -> None:
    column = np.tile(np.array(values), (6, 1))
    times = np.full(len(values), NOW)
    for message, value in zip(messages(ZSCORE_TOPIC, times, column), values, strict=True):
        for entry in json.loads(message)["z_scores"]:
            score = entry["zscore_price"]
            assert score is None if math.isnan(value) else (type(score), score.hex()) == (float, value.hex())


@given(st.lists(st.integers(FIRST_MS, LAST_MS), min_size=1, max_size=4))
def test_every_time_is_written_as_all_readers_take_it(times: list[int]) -> None:
    texts = np.datetime_as_string(np.array(times).astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist()
    formed = messages(HIGHER_TOPIC, np.array(times), np.array(times))
    assert [json.loads(message)["timestamp"] for message in formed] == texts


@given(st.lists(st.floats(1e-8, 1e10) | st.floats(0, 1e-300), min_size=6, max_size=6))
def test_statistics_are_read_back_to_the_bit(values: list[float]) -> None:
    column = np.array(values).reshape(6, 1)
    formed = messages(MOVING_TOPIC, np.array([NOW]), column, column, np.ones((6, 1), dtype=np.int64))
    read = read_back(MOVING_TOPIC, formed)
    assert read.columns[0].tobytes() == column.tobytes() == read.columns[1].tobytes()


ONES = np.ones((6, 1))
RESULTS = {
    "moving_stats": (MOVING_TOPIC, messages(MOVING_TOPIC, np.array([NOW]), ONES, ONES, ONES.astype(np.int64))[0]),
    "zscores": (ZSCORE_TOPIC, messages(ZSCORE_TOPIC, np.array([NOW]), ONES)[0]),
    "higher": (HIGHER_TOPIC, messages(HIGHER_TOPIC, np.array([NOW]), np.array([1_000]))[0]),
    "lower": (LOWER_TOPIC, messages(LOWER_TOPIC, np.array([NOW]), np.array([1_000]))[0]),
}


def foreign_to(good: bytes) -> list[bytes | None]:
    """Messages that are no results, many of them nearly one."""
    numbers = (b"one", b"NaN", b"nan", b"1e999", b"-inf", b"", b'"1.0"', b"1.0,1.0", b"1,0")
    days = (b"2025-15-08", b"2025-02-30", b"1969-12-31", b"2262-01-01", b"9999-12-31", b"0000-01-01", b"12025-05-08")
    symbols = (b"", b"btcusdt", b"\xff", b"BTC\\u0055SDT", b"X" * 33, b"BTCUSDT ")
    changes = [
        *((b"1.0", number) for number in numbers),
        *((b"2025-05-08", day) for day in days),
        *((b"BTCUSDT", symbol) for symbol in symbols),
        *((b'"count":1', b'"count":' + count) for count in (b"1.5", b"9" * 30, b"null", b'"1"')),
        *((b'"30s"', window) for window in (b'"1m"', b"30", b'"30s","x":1')),
        *((b"5m", b"6m"), (b'"symbol"', b'"Symbol"'), (b",", b", "), (b":", b": ")),
        *((b"}", b"}\r"), (b"{", b"\n{"), (b"Z", b""), (b"T0", b"X0")),
    ]
    changed = {good.replace(old, new, 1) for old, new in changes} - {good}
    pieces: set[bytes] = {good[:at] for at in range(len(good))} | {good[at:] for at in range(1, len(good))}
    valid_json = [b"null", b"1", b'"x"', b"[]", b"[" * 5_000 + b"]" * 5_000, b'{"a":' * 100 + b"1" + b"}" * 100]
    tick = b'{"symbol":"BTCUSDT","price":1,"timestamp":"2025-05-08T04:12:38.300Z"}'
    return [
        *(None, b"", b"x", b"{}", b"\n", b"\r\n", b"\0", b"\xff\xfe", good + b" ", good + b"\n", good + good, tick),
        *(good + b"\n" + good, b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"), b"," * 25, b"x" * 2_000_000),
        *valid_json,
        *sorted(changed | pieces),
    ]


@pytest.mark.parametrize("table", RESULTS)
def test_what_is_no_result_is_left_out_wherever_it_is(table: str) -> None:
    topic, good = RESULTS[table]
    foreign = foreign_to(good)
    # Alone, all together, and each between two results: the same is found every time.
    for value in foreign:
        assert len(read_back(topic, [value]).rows) == 0, value
    assert table_rows(table, read_back(topic, foreign)).num_rows == 0
    mixed = [good, *(each for value in foreign for each in (value, good))]
    found = read_back(topic, mixed)
    assert found.rows.tolist() == list(range(0, len(mixed), 2))
    assert table_rows(table, found).to_pylist() == table_rows(table, read_back(topic, [good])).to_pylist() * len(
        found.rows
    )


@pytest.mark.parametrize("table", RESULTS)
def test_a_result_under_another_key_is_none(table: str) -> None:
    topic, good = RESULTS[table]
    for key in (None, b"", b"ETHUSDT", b"btcusdt", b"\xff"):
        assert len(read_back(topic, [good], key).rows) == 0
    keys, values = pa.array([b"BTCUSDT", b"X", b"BTCUSDT"]), pa.array([good] * 3)
    assert read_results(topic, keys, values).rows.tolist() == [0, 2]


def test_a_message_of_two_lines_does_not_make_up_for_one_without_a_value() -> None:
    topic, good = RESULTS["higher"]
    assert read_back(topic, [good + b"\n" + good, None, good]).rows.tolist() == [2]


def test_a_thousand_foreign_messages_take_little_time() -> None:
    topic, good = RESULTS["moving_stats"]
    nearly = [good.replace(b"-05-08", b"-02-30"), b"x", None, b"," * 25]
    began = time.perf_counter()
    assert read_back(topic, [*nearly * 250, good]).rows.tolist() == [1_000]
    assert time.perf_counter() - began < 10
