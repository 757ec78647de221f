"""The `prices` job: every message on the price topic to one of two Delta tables, `prices` or `rejects`.

Belongs here: how messages become rows, and writing both tables exactly once. Does not belong here: the accept rule
(`acceptance`) or the tables' definitions (`archive`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.archive import append_batch
from spark_jobs.batch_acceptance import accept_batch
from spark_jobs.contract import Integers
from spark_jobs.packing import record_milliseconds
from spark_jobs.settings import StreamSettings
from spark_jobs.sinks import Published

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


def classify(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For `mapInArrow`: Kafka records to rows that either have a price or a reason why not."""
    for batch in batches:
        verdicts = accept_batch(batch.column("value"), record_milliseconds(batch))
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


def write_batch(messages: DataFrame, query_id: str, batch: int, settings: StreamSettings) -> Published:
    """Append a micro-batch of Kafka records to the two tables; what an earlier attempt appended is skipped by Delta.

    What was counted is read from the tables, so a repeated micro-batch changes nothing.
    """
    rows = messages.coalesce(1).mapInArrow(classify, ROW_TYPE).persist()
    try:
        is_reject = F.col("reason").isNotNull()
        total, rejects, event_time = rows.agg(
            F.count("*"), F.count_if(is_reject), F.max(F.unix_millis("timestamp"))
        ).collect()[0]
        kafka = ("topic", "partition", "offset", "ingested_at")
        ticks = rows.where(~is_reject).select("symbol", "price", "timestamp", *kafka)
        refused = rows.where(is_reject).select("raw", "reason", *kafka)
        if total > rejects:
            append_batch(ticks.withColumn("date", F.to_date("timestamp")), "prices", query_id, batch, settings)
        if rejects:
            append_batch(refused.withColumn("date", F.to_date("ingested_at")), "rejects", query_id, batch, settings)
    finally:
        rows.unpersist()
    kept, refused_ever = (_count(messages.sparkSession, table, settings) for table in ("prices", "rejects"))
    counts = {"input_rows": kept + refused_ever, "output_rows": kept, "late": 0, "duplicates": 0}
    return Published({**counts, "rejects": refused_ever}, event_time)


def _count(spark: SparkSession, table: str, settings: StreamSettings) -> int:
    """Delta answers this from its log, without reading data."""
    return spark.read.format("delta").load(settings.table_uri(table)).count()
