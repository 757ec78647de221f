"""The Delta tables: how they are made, and how a micro-batch is appended exactly once.

Belongs here: making tables, appending, and the copy of an output topic to its table. Does not belong here: which
columns they have (`tables`), how messages become rows (`published`), or the rows of `prices` and `rejects` (`prices`).

A table is fed from its topic, never from the computation: as the topic holds each result exactly once, and the
micro-batch is recorded in Delta's log with the data, the table does too.

It is `deltalake` that writes, in the task that reads the messages: a commit takes some hundredths of a second, where
that of Delta's Java writer takes seconds of a small machine's time, in which the results of the same stream wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from pyspark.sql import Row, SparkSession

from spark_jobs.delta_log import force_commits, set_torn_commits_aside
from spark_jobs.offset_ranges import OffsetRange, read, record_batch
from spark_jobs.published import read_results, table_rows
from spark_jobs.settings import StreamSettings
from spark_jobs.table_lock import table_lock
from spark_jobs.tables import arrow_schema

_PROPERTIES: dict[str, str | None] = {
    # A checkpoint of the log costs as much as some commits; readers cope with a hundred small entries.
    "delta.checkpointInterval": "100",
    # Readers can ask for the rows of a range of versions, whatever maintenance did to the files.
    "delta.enableChangeDataFeed": "true",
    # As long as removed files are kept: older versions cannot be read anyway, and a week has 30,000 of them.
    "delta.logRetentionDuration": "interval 7 days",
}
_LOCK_SECONDS = 300.0
"""Far longer than maintenance holds a table. The query ends then and says so, and is started again."""


class TableTarget(NamedTuple):
    """A table and where it is: plain data that Spark sends to its workers."""

    table: str
    uri: str
    home: Path
    """Where its lock is."""
    durable: bool = False
    """Whether a commit is on disk when it counts as done."""

    @classmethod
    def of(cls, table: str, settings: StreamSettings) -> TableTarget:
        return cls(table, settings.table_uri(table), settings.home, settings.durable)


def create_table(target: TableTarget) -> str:
    """Create a table unless it is there, so that it can be queried before the first result. Returns its id.

    What a power cut has left of its last commits is put in order.
    """
    with table_lock(target.home, target.table, _LOCK_SECONDS):
        set_torn_commits_aside(target.uri)
        DeltaTable.create(
            target.uri,
            arrow_schema(target.table),
            mode="ignore",
            partition_by=["date"],
            configuration=_PROPERTIES,
        )
        if target.durable:
            force_commits(target.uri, -1)
        return str(DeltaTable(target.uri).metadata().id)


def archive_batch(
    spark: SparkSession, wanted: OffsetRange, client: Mapping[str, str], query_id: str, batch: int, target: TableTarget
) -> int:
    """Append a micro-batch, given as its offsets on a topic, to the table that is the topic's copy, once.

    `client`: librdkafka settings for reaching the brokers. Returns how many of the messages are no results.
    """
    (row,) = in_one_task(spark, partial(_copy, wanted, client, query_id, batch, target), "foreign bigint")
    foreign: int = row["foreign"]
    return foreign


def _copy(
    wanted: OffsetRange, client: Mapping[str, str], query_id: str, batch: int, target: TableTarget
) -> Iterator[pa.RecordBatch]:
    """The task side."""
    foreign = 0

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal foreign
        for messages in map(record_batch, read(wanted, client)):
            results = read_results(wanted.topic, messages.column("key"), messages.column("value"))
            foreign += len(messages) - len(results.rows)
            yield table_rows(target.table, results)

    append(target, rows(), query_id, batch)
    yield pa.RecordBatch.from_pydict({"foreign": pa.array([foreign], pa.int64())})


def in_one_task(spark: SparkSession, write: Callable[[], Iterator[pa.RecordBatch]], report: str) -> list[Row]:
    """Have a worker write, and return the rows of its report, which are of the type `report`.

    One task writes one file of a table: these commits are few, and small files are what readers pay for.
    """

    def run(nothing: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # A worker that leaves something unread is not used again.
        for _ in nothing:
            pass
        yield from write()

    return spark.range(0, 1, 1, 1).mapInArrow(run, report).collect()


def append(target: TableTarget, rows: Iterator[pa.RecordBatch], query_id: str, batch: int) -> None:
    """Append the rows of a micro-batch in one commit, unless an earlier attempt at that micro-batch has done so.

    All rows are taken in either case; memory is bounded by what a file's writer holds. Without rows nothing is
    committed. Raises TableBusy when maintenance does not let go of the table, DeltaError, OSError and whatever `rows`
    raises: then nothing has been committed.
    """
    batches = (some for some in rows if len(some))
    with table_lock(target.home, target.table, _LOCK_SECONDS):
        opened = DeltaTable(target.uri)
        done = opened.transaction_version(query_id)
        first = next(batches, None)
        if first is not None and (done is None or done < batch):
            before = opened.version()
            _commit(opened, target.table, chain((first,), batches), Transaction(query_id, batch))
            if target.durable:
                force_commits(target.uri, before)
    for _ in batches:
        pass


def _commit(opened: DeltaTable, table: str, batches: Iterator[pa.RecordBatch], transaction: Transaction) -> None:
    failures: list[Exception] = []

    def made() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            failures.append(error)
            raise

    try:
        write_deltalake(
            opened,
            pa.RecordBatchReader.from_batches(arrow_schema(table), made()),
            mode="append",
            commit_properties=CommitProperties(app_transactions=[transaction]),
        )
    except Exception as error:
        # What was raised where rows are made comes back from Arrow as a text.
        raise (failures[0] if failures else error) from None
