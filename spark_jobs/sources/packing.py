"""Kafka records to packed ticks: the messages of a bucket of symbols become one row before they reach an operator.

Rows are what is dear between Spark and Python, so there are few.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spark_jobs.framing import decode_blobs, encode_blobs
from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.batch_validation import ValidationResult, accept_batch
from tickhouse.contract.decoding import read_results
from tickhouse.contract.names import MOVING_TOPIC, TICKS_TOPIC, WINDOWS

_MOST_MESSAGES = 500_000
_TICKS, _STATISTICS, _REJECTED = "ticks", "statistics", "rejected"

PACKED_TYPE = "bucket int, content binary"
_PACKED_SCHEMA = pa.schema([("bucket", pa.int32()), ("content", pa.binary())])

Words = npt.NDArray[Any]


class PackedTicks(NamedTuple):
    """n ticks of one symbol; every array has shape (n,)."""

    offsets: Integers
    partitions: Integers
    timestamps: Integers
    """Milliseconds since the epoch."""
    prices: Integers
    """In 1e-8 units."""


class PackedStatistics(NamedTuple):
    """n statistics messages of one symbol; `offsets` and `timestamps` as of ticks."""

    offsets: Integers
    timestamps: Integers
    averages: Floats
    """Shape (windows, n)."""
    deviations: Floats
    """Shape (windows, n), NaN where null."""


class Messages(NamedTuple):
    """What came for a bucket."""

    ticks: dict[str, PackedTicks]
    """By symbol."""
    statistics: dict[str, PackedStatistics]
    """By symbol."""
    rejected: int
    """Number of messages that are no ticks; they are nobody's, and all in one bucket."""


def bucket_of(symbol: str, buckets: int) -> int:
    """In which of so many buckets a symbol is, always."""
    return zlib.crc32(symbol.encode()) % buckets


def verdicts_on(batch: pa.RecordBatch) -> ValidationResult:
    """What the accept rule says of each of n Kafka records (`range_reader.RECORD_SCHEMA`)."""
    return accept_batch(batch.column("key"), batch.column("value"), batch.column("timestamp").to_numpy())


def pack(batches: Iterable[pa.RecordBatch], *, buckets: int) -> Iterator[pa.RecordBatch]:
    """Kafka records (`range_reader.RECORD_SCHEMA`) to rows of `PACKED_TYPE`.

    One row for each bucket, out of some `_MOST_MESSAGES` at a time.
    """
    packed: dict[tuple[str, str], list[Words]] = defaultdict(list)
    messages = 0
    for batch in batches:
        topics = batch.column("topic")
        for topic in topics.unique().to_pylist():
            for symbol, kind, words in _PACKINGS[topic](batch.filter(pa.compute.equal(topics, topic))):
                packed[symbol, kind].append(words)
        messages += len(batch)
        if messages >= _MOST_MESSAGES:
            yield _rows(packed, buckets)
            packed.clear()
            messages = 0
    yield _rows(packed, buckets)


def _rows(packed: Mapping[tuple[str, str], list[Words]], buckets: int) -> pa.RecordBatch:
    contents: dict[int, dict[str, bytes]] = defaultdict(dict)
    for (symbol, kind), words in packed.items():
        contents[bucket_of(symbol, buckets)][f"{kind} {symbol}"] = np.concatenate(words, axis=1).tobytes()
    columns = list(contents), [encode_blobs(content) for content in contents.values()]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _PACKED_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_PACKED_SCHEMA)


def _pack_ticks(batch: pa.RecordBatch) -> Iterator[tuple[str, str, Words]]:
    verdicts = verdicts_on(batch)
    kafka = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("offset", "partition"))
    words = np.stack((*kafka, verdicts.timestamps, verdicts.prices)).astype("<i8")
    for symbol, mine in verdicts.ticks_by_symbol():
        yield symbol, _TICKS, words[:, mine]
    if verdicts.reasons:
        yield "", _REJECTED, np.array([[len(verdicts.reasons)]], dtype="<i8")


def _pack_statistics(batch: pa.RecordBatch) -> Iterator[tuple[str, str, Words]]:
    results = read_results(MOVING_TOPIC, batch.column("key"), batch.column("value"))
    if not len(results.rows):
        return
    averages, deviations, _ = results.columns
    offsets = batch.column("offset").to_numpy()[results.rows]
    integers = np.stack((offsets, results.timestamps)).astype("<i8").view("<f8")
    words = np.concatenate((integers, averages, deviations)).astype("<f8")
    of_symbol = results.symbols.indices.to_numpy()
    order = np.argsort(of_symbol, kind="stable")
    ends = np.cumsum(np.bincount(of_symbol))
    for symbol, mine in zip(results.symbols.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True):
        yield symbol, _STATISTICS, words[:, mine]


_PACKINGS = {TICKS_TOPIC: _pack_ticks, MOVING_TOPIC: _pack_statistics}
"""What makes of the messages of a topic, for each symbol and kind, 8-byte words: a column for each message."""


def unpack(contents: Iterable[bytes]) -> Messages:
    """All that is in a bucket's packed rows, in offset order whatever the order of the rows."""
    payloads: dict[str, dict[str, list[bytes]]] = {kind: defaultdict(list) for kind in (_TICKS, _STATISTICS, _REJECTED)}
    for content in contents:
        for name, payload in decode_blobs(content).items():
            kind, _, symbol = name.partition(" ")
            payloads[kind][symbol].append(payload)
    return Messages(
        {symbol: _unpack_ticks(parts) for symbol, parts in payloads[_TICKS].items()},
        {symbol: _unpack_statistics(parts) for symbol, parts in payloads[_STATISTICS].items()},
        sum(int(np.frombuffer(part, dtype="<i8").sum()) for parts in payloads[_REJECTED].values() for part in parts),
    )


def _unpack_ticks(payloads: list[bytes]) -> PackedTicks:
    ticks = np.concatenate([np.frombuffer(payload, dtype="<i8").reshape(4, -1) for payload in payloads], axis=1)
    # One symbol keeps to one partition unless its messages were given different keys; then this order is a choice.
    order = np.lexsort((ticks[1], ticks[0]))
    return PackedTicks(*ticks[:, order])


def _unpack_statistics(payloads: list[bytes]) -> PackedStatistics:
    rows = 2 + 2 * len(WINDOWS)
    values = np.concatenate([np.frombuffer(payload, dtype="<f8").reshape(rows, -1) for payload in payloads], axis=1)
    # They are published in the order of time, which offsets have no more across partitions that were added.
    order = np.argsort(np.ascontiguousarray(values[1]).view("<i8"), kind="stable")
    values = np.ascontiguousarray(values[:, order])
    windows = len(WINDOWS)
    return PackedStatistics(
        values[0].view("<i8"), values[1].view("<i8"), values[2 : 2 + windows], values[2 + windows :]
    )
