"""The streams' own operators run over messages in memory, micro-batch by micro-batch, without Spark.

Only where Spark keeps its state is stood in for; what the operators compute and publish is theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs.framing import decode_blobs
from spark_jobs.jobs.moving import MovingProcessor
from spark_jobs.jobs.symbol_processor import SymbolProcessor
from spark_jobs.jobs.trend import TrendProcessor
from spark_jobs.jobs.zscore import ZScoreProcessor
from spark_jobs.sources.packing import pack
from tickhouse.contract.encoding import form_messages
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, TICKS_TOPIC, ZSCORE_TOPIC
from tickhouse.kafka.range_reader import RECORD_SCHEMA

_BUCKETS = 3
"""So few that symbols meet in one."""


class Message(NamedTuple):
    """A Kafka record; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes


State = dict[str, dict[Any, Any]]
"""What is kept for one bucket: the content of each of its values and maps, by name."""


class _Value:
    def __init__(self, content: dict[Any, Any]) -> None:
        self._content = content

    def get(self) -> tuple[bytes] | None:
        return self._content.get("")

    def update(self, content: tuple[bytes]) -> None:
        self._content[""] = content


class _Map:
    def __init__(self, content: dict[Any, Any]) -> None:
        self._content = content

    def getValue(self, key: Any) -> Any:
        return self._content.get(key)

    def updateValue(self, key: Any, value: Any) -> None:
        self._content[key] = value

    def removeKey(self, key: Any) -> None:
        del self._content[key]


class _Handle:
    def __init__(self, state: State) -> None:
        self._state = state

    def getValueState(self, name: str, schema: str) -> _Value:
        del schema
        return _Value(self._state.setdefault(name, {}))

    def getMapState(self, name: str, key_schema: str, value_schema: str) -> _Map:
        del key_schema, value_schema
        return _Map(self._state.setdefault(name, {}))


def operator(processor: type[SymbolProcessor], lateness_ms: int, state: State) -> SymbolProcessor:
    """An operator on the state of one bucket, as Spark makes one for each task."""
    made = processor(lateness_ms)
    made.init(cast(StatefulProcessorHandle, _Handle(state)))
    return made


def packed(messages: Sequence[Message], buckets: int) -> Iterator[Row]:
    """The rows, by bucket, that a micro-batch of messages is packed to."""
    records = pa.RecordBatch.from_pylist([message._asdict() for message in messages], schema=RECORD_SCHEMA)
    for rows in pack([records], buckets=buckets):
        yield from (Row(**row) for row in rows.to_pylist())


class Stream:
    """One stream job: its operators, one for each bucket, and what they have published to each topic."""

    def __init__(self, processor: type[SymbolProcessor], lateness_ms: int, topics: tuple[str, ...]) -> None:
        self._processor = processor
        self._lateness_ms = lateness_ms
        self._operators: dict[int, SymbolProcessor] = {}
        self.published: dict[str, list[bytes]] = {topic: [] for topic in topics}

    def run(self, messages: Sequence[Message]) -> None:
        """One micro-batch."""
        for row in packed(messages, _BUCKETS):
            if row.bucket not in self._operators:
                self._operators[row.bucket] = operator(self._processor, self._lateness_ms, {})
            for result in self._operators[row.bucket].handleInputRows((row.bucket,), iter([row]), None):
                for topic, results in zip(self.published, result.results, strict=False):
                    self.published[topic] += form_messages(topic, [*decode_blobs(results).items()])[1]


Published = dict[str, list[bytes]]
"""The messages of the output topics, in the order in which they were published, by table."""


def _message(topic: str, offset: int, time: int, value: bytes) -> Message:
    return Message(topic, 0, offset, time, json.loads(value)["symbol"].encode(), value)


def publish(
    values: Sequence[tuple[int, bytes]], lateness_ms: int, batches: Sequence[int] = (), pace: Sequence[int] = ()
) -> Published:
    """All that the streams publish for values on the price topic with their record time in milliseconds.

    `batches`: sizes of their micro-batches, over and over. `pace`: how many ticks and, in turn, statistics each
    micro-batch of the zscore stream takes.
    """
    ticks = [_message(TICKS_TOPIC, offset, time, value) for offset, (time, value) in enumerate(values)]
    moving = Stream(MovingProcessor, lateness_ms, (MOVING_TOPIC,))
    trend = Stream(TrendProcessor, lateness_ms, (HIGHER_TOPIC, LOWER_TOPIC))
    for batch in _cut(ticks, batches or [len(ticks)]):
        moving.run(batch)
        trend.run(batch)
    statistics = [
        _message(MOVING_TOPIC, offset, 0, value) for offset, value in enumerate(moving.published[MOVING_TOPIC])
    ]
    zscore = Stream(ZScoreProcessor, lateness_ms, (ZSCORE_TOPIC,))
    paces = list(pace) or [len(ticks), len(statistics)]
    tick_batches = _cut(ticks, paces[::2])
    statistics_batches = _cut(statistics, paces[1::2] or paces)
    while True:
        batch = next(tick_batches, []) + next(statistics_batches, [])
        if not batch:
            break
        zscore.run(batch)
    return {
        "moving_stats": moving.published[MOVING_TOPIC],
        "zscores": zscore.published[ZSCORE_TOPIC],
        "higher": trend.published[HIGHER_TOPIC],
        "lower": trend.published[LOWER_TOPIC],
    }


def _cut(messages: list[Message], sizes: Sequence[int]) -> Iterator[list[Message]]:
    start = turn = 0
    while start < len(messages):
        size = max(1, sizes[turn % len(sizes)])
        yield messages[start : start + size]
        start, turn = start + size, turn + 1


_TIMES = pa.timestamp("us", "UTC")
_VALUES = {
    "moving_stats": pa.list_(
        pa.struct(
            [("window", pa.string()), ("avg_price", pa.float64()), ("std_price", pa.float64()), ("count", pa.int64())]
        )
    ),
    "zscores": pa.list_(pa.struct([("window", pa.string()), ("zscore_price", pa.float64())])),
    "higher": pa.float64(),
    "lower": pa.float64(),
}
COLUMNS = {"moving_stats": "stats", "zscores": "z_scores", "higher": "higher_window", "lower": "lower_window"}


def table_rows(table: str, messages: Sequence[bytes]) -> pa.Table:
    """The rows of a table that messages of its topic are."""
    schema = pa.schema(
        [("symbol", pa.string()), ("timestamp", _TIMES), (COLUMNS[table], _VALUES[table]), ("date", pa.date32())]
    )
    rows = [json.loads(message) for message in messages]
    for row in rows:
        row["timestamp"] = datetime.fromisoformat(row["timestamp"])
        row["date"] = row["timestamp"].date()
    return pa.Table.from_pylist(rows, schema)


def price_rows(ticks: Sequence[tuple[str, int, int]], first_offset: int = 0, ingested_ms: int = 0) -> pa.Table:
    """The rows of `prices` that ticks (symbol, timestamp in ms, price in 1e-8 units) on one partition are."""
    count = len(ticks)
    words = np.zeros((count, 2), dtype="<i8")
    words[:, 0] = [price for _, _, price in ticks]
    times = np.array([time for _, time, _ in ticks], dtype=np.int64)
    return pa.table(
        {
            "symbol": pa.array([symbol for symbol, _, _ in ticks], pa.string()),
            "price": pa.Array.from_buffers(pa.decimal128(18, 8), count, [None, pa.py_buffer(words.tobytes())]),
            "timestamp": pa.array(times * 1_000).cast(_TIMES),
            "topic": pa.array([TICKS_TOPIC] * count, pa.string()),
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(first_offset, first_offset + count), pa.int64()),
            "ingested_at": pa.array([ingested_ms * 1_000] * count, pa.int64()).cast(_TIMES),
            "date": pa.array((times // 86_400_000).astype(np.int32)).cast(pa.date32()),
        }
    )
