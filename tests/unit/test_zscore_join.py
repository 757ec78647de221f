"""z-scores do not depend on the order in which statistics come: their topic may have been given more partitions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.compute.zscore_join import Chunked
from spark_jobs.jobs.moving import MovingProcessor
from spark_jobs.jobs.zscore import ZScoreProcessor
from tests.operators_without_spark import Message, Stream
from tickhouse.contract.names import MOVING_TOPIC, TICKS_TOPIC, ZSCORE_TOPIC

_LATENESS_MS = 10_000
_START_MS = 1_767_225_600_000


def _ticks(count: int) -> list[Message]:
    messages = []
    for number in range(count):
        time_ms = _START_MS + 1_000 * number
        value = {"symbol": "BTCUSDT", "price": 100 + number % 7, "timestamp": _text(time_ms)}
        messages.append(Message(TICKS_TOPIC, 0, number, time_ms, b"BTCUSDT", json.dumps(value).encode()))
    return messages


def _text(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat()


def _statistics(ticks: Sequence[Message]) -> list[bytes]:
    moving = Stream(MovingProcessor, _LATENESS_MS, (MOVING_TOPIC,))
    moving.run(ticks)
    return moving.published[MOVING_TOPIC]


_TICKS = _ticks(400)
_STATISTICS = _statistics(_TICKS)
_IN_ORDER = Stream(ZScoreProcessor, _LATENESS_MS, (ZSCORE_TOPIC,))
_IN_ORDER.run(
    [*_TICKS, *(Message(MOVING_TOPIC, 0, offset, 0, b"BTCUSDT", value) for offset, value in enumerate(_STATISTICS))]
)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, len(_STATISTICS) - 1), st.integers(2, 9), st.integers(0, 2))
def test_statistics_on_two_partitions_are_all_joined(grown_at: int, batches: int, ahead: int) -> None:
    """The topic gets a partition after `grown_at` results, and `zscore`, which is behind, reads both at once."""
    old = [
        Message(MOVING_TOPIC, 0, offset, 0, b"BTCUSDT", value) for offset, value in enumerate(_STATISTICS[:grown_at])
    ]
    new = [
        Message(MOVING_TOPIC, 1, offset, 0, b"BTCUSDT", value) for offset, value in enumerate(_STATISTICS[grown_at:])
    ]
    zscore = Stream(ZScoreProcessor, _LATENESS_MS, (ZSCORE_TOPIC,))
    parts = [np.array_split(np.arange(len(messages)), batches) for messages in (_TICKS, old, new)]
    for number in range(batches + ahead):
        batch = [_TICKS[place] for place in (parts[0][number] if number < batches else ())]
        for messages, shares in ((old, parts[1]), (new, parts[2])):
            batch += [messages[place] for place in (shares[number - ahead] if number >= ahead else ())]
        if batch:
            zscore.run(batch)
    assert sorted(zscore.published[ZSCORE_TOPIC]) == sorted(_IN_ORDER.published[ZSCORE_TOPIC])
    assert len(zscore.published[ZSCORE_TOPIC]) == len(_STATISTICS)


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_chunks_count_the_prices_that_wait(before: list[int], more: list[int]) -> None:
    kept = Chunked.from_bytes(Chunked(np.zeros(0, np.int64), np.zeros(0, np.int64)).plus(np.array(before)).to_bytes())
    kept = kept.plus(np.array(more, dtype=np.int64))
    every = [*before, *more]
    assert dict(zip(kept.minutes.tolist(), kept.waiting.tolist(), strict=True)) == {n: every.count(n) for n in every}
