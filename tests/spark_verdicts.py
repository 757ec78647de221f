"""What Spark makes of a file of Kafka records: the two expressions by which the jobs apply the accept rule.

    python -m tests.spark_verdicts RECORDS CLASSIFIED PACKED

All are Parquet files: `RECORDS` holds Kafka records (`offset_ranges.RECORD_SCHEMA`); the other two are written. To be
run as a process of its own, in the environment of a stream job.
"""

from __future__ import annotations

import sys
from functools import partial

import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from spark_jobs.jobs.prices import ROW_TYPE, classify
from spark_jobs.session import build_session
from spark_jobs.settings import StreamSettings
from spark_jobs.sources.packing import PACKED_TYPE, pack


def main(records_file: str, classified_file: str, packed_file: str) -> None:
    """Apply both to the same rows in one session."""
    spark = build_session("verdicts", StreamSettings())
    # So many tasks that blocks of all kinds come about; a job's own are as large as these.
    records = spark.read.parquet(records_file).repartition(4, "offset")
    _write(records.mapInArrow(classify, ROW_TYPE), classified_file)
    _write(records.mapInArrow(partial(pack, buckets=8), PACKED_TYPE), packed_file)
    spark.stop()


def _write(rows: DataFrame, file: str) -> None:
    pq.write_table(rows.toArrow(), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
