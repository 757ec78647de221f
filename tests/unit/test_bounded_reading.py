"""What bounds the memory of reading: portions of records by their bytes, and batches that wait in a file."""

from __future__ import annotations

import pyarrow as pa
import pytest
from confluent_kafka import Message

from spark_jobs.jobs import spill
from spark_jobs.jobs.prices import classify
from spark_jobs.jobs.spill import SpilledBatches
from spark_jobs.sources.packing import pack, unpack
from tickhouse.contract.names import MOVING_TOPIC, TICKS_TOPIC
from tickhouse.kafka import range_reader
from tickhouse.kafka.range_reader import portions, record_batch, size


def record(
    offset: int, key: bytes | None, value: bytes | None, time: tuple[int, int] = (1, 5), topic: str = TICKS_TOPIC
) -> Message:
    return Message(topic=topic, partition=0, offset=offset, key=key, value=value, timestamp=time)


def test_portions_have_so_many_bytes_or_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_reader, "_BYTES", 10)
    lengths = [(3, 3), (4, 0), (1, 0), (None, None), (0, 25), (25, 0), (5, 5), (None, 1), (0, 0)]
    records = [
        record(offset, None if key is None else b"k" * key, None if value is None else b"v" * value)
        for offset, (key, value) in enumerate(lengths)
    ]
    assert size(records) == 6 + 4 + 1 + 25 + 25 + 10 + 1
    parts = list(portions(records))
    assert [message.offset() for part in parts for message in part] == list(range(len(records)))
    assert all(size(part) <= 10 or len(part) == 1 for part in parts)
    assert list(portions(records[:2])) == [records[:2]]
    assert list(portions([])) == []


def test_records_without_a_time_or_with_one_that_no_type_holds() -> None:
    times = ((0, -1), (0, 7), (1, -1), (1, -(10**16)), (2, 10**16), (1, 2**63 - 1), (1, -(2**63)))
    batch = record_batch([record(offset, None, None, time) for offset, time in enumerate(times)])
    assert batch.column("timestamp").to_pylist() == [-1, -1, -1, -(10**16), 10**16, 2**63 - 1, -(2**63)]
    (rows,) = classify([batch])
    assert rows.column("offset").to_pylist() == list(range(len(times)))


def test_nothing_but_foreign_messages_is_nothing() -> None:
    batch = record_batch([record(offset, b"A", b"x", topic=MOVING_TOPIC) for offset in range(3)])
    (rows,) = pack([batch], buckets=4)
    assert unpack(rows.column("content").to_pylist()) == ({}, {}, 0)


@pytest.mark.parametrize("in_memory", [10, 2**20])
def test_batches_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(spill, "_IN_MEMORY_BYTES", in_memory)
    schema = pa.schema([("a", pa.binary())])
    batches = [pa.RecordBatch.from_pydict({"a": [b"x" * 100, None] * count}, schema=schema) for count in (0, 1, 3)]
    spilled = SpilledBatches(schema)
    for batch in batches:
        spilled.append(batch)
    assert list(spilled) == batches
    assert list(SpilledBatches(schema)) == []
