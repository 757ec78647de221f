"""The JSON forms of results: what goes out is strict JSON, and statistics are read back to the bit."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spark_jobs.messages
from spark_jobs.messages import form_messages, pack_results, portions
from spark_jobs.published import read_statistics
from tickhouse.contract.names import HIGHER_TOPIC, MOVING_TOPIC, WINDOWS, ZSCORE_TOPIC

NOW = 1_746_677_558_300
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999


def messages(topic: str, *columns: Any) -> list[bytes]:
    """The messages of one symbol's results."""
    symbols, formed = form_messages(topic, [("BTCUSDT", pack_results(*columns))])
    assert symbols == ["BTCUSDT"] * len(formed)
    return formed


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
    read = read_statistics(pa.array(moving))
    assert (read.symbols.to_pylist(), read.timestamps.tolist()) == (["BTCUSDT"] * 2, [NOW, NOW + 100])
    assert np.array_equal(read.averages, averages)
    assert np.array_equal(read.deviations, deviations, equal_nan=True)
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
    monkeypatch.setattr(spark_jobs.messages, "_MESSAGES", 3)
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
    read = read_statistics(pa.array(formed))
    assert read.averages.tobytes() == column.tobytes() == read.deviations.tobytes()


GOOD = messages(MOVING_TOPIC, np.array([NOW]), np.ones((6, 1)), np.ones((6, 1)), np.ones((6, 1), dtype=np.int64))[0]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{}",
        b'{"timestamp":1}',
        b"x",
        b'{"symbol":"A","stats":[]}',
        GOOD[:-1],
        GOOD + b" ",
        GOOD.replace(b"5m", b"6m"),
        GOOD.replace(b"1.0", b"null", 1),
        GOOD.replace(b"1.0", b"one", 1),
        GOOD.replace(b"-05-", b"-15-"),
    ],
)
def test_a_damaged_statistics_message_is_a_fault(damaged: bytes) -> None:
    with pytest.raises(ValueError):
        read_statistics(pa.array([GOOD, damaged]))
