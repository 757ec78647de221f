"""The `prices` job: every message on the price topic to one of two Delta tables, `prices` or `rejects`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from spark_jobs.jobs.spill import SpilledBatches
from spark_jobs.settings import StreamSettings
from spark_jobs.sinks.delta import TableBatch, TableTarget, append, at_least, begins, in_one_task
from spark_jobs.sinks.kafka import Published
from spark_jobs.sources.packing import verdicts_on
from tickhouse.contract.arrays import Integers
from tickhouse.contract.tables import arrow_schema
from tickhouse.kafka.range_reader import OffsetRange, read, record_batch
from tickhouse.table_checksums import open_table

ROW_TYPE = (
    "symbol string, price decimal(18,8), timestamp timestamp, raw binary, reason string,"
    " topic string, partition int, offset bigint, ingested_at timestamp"
)
"""The rows of `classify`: what belongs to either table."""
_MICROSECONDS = pa.timestamp("us", tz="UTC")
_ROW_SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("price", pa.decimal128(18, 8)),
        ("timestamp", _MICROSECONDS),
        ("raw", pa.binary()),
        ("reason", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("ingested_at", _MICROSECONDS),
    ]
)

_REPORT_TYPE = "kept bigint, refused bigint, event_time bigint"
_REPORT_SCHEMA = pa.schema([("kept", pa.int64()), ("refused", pa.int64()), ("event_time", pa.int64())])


def classify(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For `mapInArrow`: Kafka records to rows that either have a price or a reason why not."""
    for batch in batches:
        verdicts = verdicts_on(batch)
        rejected = verdicts.of_symbol < 0
        symbols = pa.DictionaryArray.from_arrays(
            pa.array(verdicts.of_symbol, mask=rejected), pa.array(verdicts.symbols, pa.string())
        )
        reasons = [verdicts.reasons.get(row) for row in range(len(batch))]
        now = datetime.datetime.now(datetime.UTC)
        columns = [
            symbols.cast(pa.string()),
            pc.if_else(rejected, pa.scalar(None, pa.decimal128(18, 8)), _decimals(verdicts.prices)),
            pa.array(verdicts.timestamps * 1_000, mask=rejected).cast(_MICROSECONDS),
            pc.if_else(rejected, batch.column("value").cast(pa.binary()), pa.scalar(None, pa.binary())),
            pa.array(reasons, pa.string()),
            batch.column("topic").cast(pa.string()),
            batch.column("partition"),
            batch.column("offset"),
            pa.array([now] * len(batch), _MICROSECONDS),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_ROW_SCHEMA)


def _decimals(prices: Integers) -> pa.Array:
    """Prices in 1e-8 units as decimal(18,8), which Arrow keeps as 128-bit integers in those very units."""
    words = np.zeros((len(prices), 2), dtype="<i8")
    words[:, 0] = prices
    return pa.Array.from_buffers(pa.decimal128(18, 8), len(prices), [None, pa.py_buffer(words.tobytes())])


def write_batch(
    spark: SparkSession, batch: TableBatch, client: Mapping[str, str], settings: StreamSettings
) -> Published:
    """Append a micro-batch to the two tables, as far as each lacks it.

    `client`: librdkafka settings for reaching the brokers. What was counted is read from the tables, so a repeated
    micro-batch changes nothing.
    """
    writer = _Writer(batch, TableTarget.of("prices", settings), TableTarget.of("rejects", settings))
    (row,) = in_one_task(spark, partial(_write, client, writer), _REPORT_TYPE)
    kept, refused = row["kept"], row["refused"]
    counts = {"input_rows": kept + refused, "output_rows": kept, "late": 0, "duplicates": 0, "rejects": refused}
    return Published(counts, row["event_time"])


def _write(client: Mapping[str, str], writer: _Writer) -> Iterator[pa.RecordBatch]:
    """The task side."""
    return writer.write(lambda wanted: map(record_batch, read(wanted, client)))


class _Writer:
    """Of one micro-batch.

    `prices` records how far it goes with every micro-batch that has messages, `rejects` only with rows: what it records
    is then behind, but no reject lies in between. Where `prices` lacks more than the micro-batch has, that is read for
    both.
    """

    def __init__(self, batch: TableBatch, prices: TableTarget, rejects: TableTarget) -> None:
        self._batch = batch
        self._prices = prices
        self._rejects = rejects

    def write(self, messages: Callable[[OffsetRange], Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        refused = SpilledBatches(arrow_schema("rejects"))
        latest: list[int] = []

        def ticks(lacking: dict[int, int]) -> Iterator[pa.RecordBatch]:
            # A micro-batch that `prices` has may not be in `rejects` yet.
            wanted = self._batch.wanted
            begins_at = wanted.first or rejects_lack
            first = {number: min(offset, lacking.get(number, offset)) for number, offset in begins_at.items()}
            for rows in classify(messages(wanted._replace(first=first))):
                rejected = rows.filter(pc.is_valid(rows.column("reason")))
                lacked = rejected.filter(pa.array(at_least(rejects_lack, rejected)))
                refused.append(_rows_of("rejects", lacked, "ingested_at"))
                accepted = rows.filter(pc.is_null(rows.column("reason")))
                if len(accepted):
                    latest.append(pc.max(accepted.column("timestamp").cast(pa.int64())).as_py() // 1_000)
                yield _rows_of("prices", accepted.filter(pa.array(at_least(lacking, accepted))), "timestamp")

        rejects_lack = begins(open_table(self._rejects.uri), self._batch)
        append(self._prices, self._batch, ticks)
        append(self._rejects, self._batch, lambda _lacking: (rows for rows in refused if len(rows)))
        kept, refused_ever = (open_table(target.uri).count() for target in (self._prices, self._rejects))
        report = {"kept": kept, "refused": refused_ever, "event_time": max(latest, default=None)}
        yield pa.RecordBatch.from_pylist([report], schema=_REPORT_SCHEMA)


def _rows_of(table: str, rows: pa.RecordBatch, dated_by: str) -> pa.RecordBatch:
    """The columns that belong to a table, with the date of one of them."""
    schema = arrow_schema(table)
    columns = [rows.column(name) for name in schema.names[:-1]]
    return pa.RecordBatch.from_arrays([*columns, rows.column(dated_by).cast(pa.date32())], schema=schema)
