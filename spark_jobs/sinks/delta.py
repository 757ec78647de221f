"""The Delta tables: how they are made, and how a micro-batch is appended exactly once.

A table is fed from its topic, never from the computation: as the topic holds each result exactly once, the table does,
too. Up to which offset of each partition it holds the messages is said by its own log, with the rows, as application
transactions. A copy goes on from there, whatever its checkpoint says: that only decides when and how much.

It is `deltalake` that writes, in the task that reads the messages: a commit takes some hundredths of a second, where
that of Delta's Java writer takes seconds of a small machine's time, in which the results of the same stream wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from pyspark.sql import Row, SparkSession

from spark_jobs.settings import StreamSettings
from spark_jobs.sinks.delta_log import force_commits, set_torn_commits_aside
from spark_jobs.sinks.table_lock import table_lock
from tickhouse.contract.decoding import read_results, table_rows
from tickhouse.contract.tables import arrow_schema
from tickhouse.kafka.range_reader import OffsetRange, read, record_batch
from tickhouse.table_checksums import note, open_table

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
        note(target.uri)
        return str(open_table(target.uri).metadata().id)


class TableBatch(NamedTuple):
    """A micro-batch for tables: plain data that Spark sends to its workers."""

    wanted: OffsetRange
    topic_id: str
    """Of the topic: one that is made anew begins anew with its offsets."""
    query_id: str
    number: int
    """With the query's id: what an earlier version recorded in the place of offsets."""

    def records(self, begins: Mapping[int, int]) -> list[Transaction]:
        """What is recorded of it in the log of a table that had gone on from `begins`."""
        reached = {number: max(end, begins.get(number, end)) for number, end in self.wanted.ends.items()}
        return _records(self.wanted.topic, self.topic_id, reached)


def position(table_uri: str, topic: str, topic_id: str, partitions: Iterable[int]) -> dict[int, int]:
    """Up to which offset of each partition a table holds a topic's messages, as far as it says so."""
    return _position(open_table(table_uri), topic, topic_id, partitions)


def set_position(target: TableTarget, topic: str, topic_id: str, offsets: Mapping[int, int]) -> None:
    """Have a table go on from other offsets. Raises TableBusy, DeltaError, OSError."""
    with table_lock(target.home, target.table, _LOCK_SECONDS):
        _commit(open_table(target.uri), target.table, iter(()), _records(topic, topic_id, offsets))
        note(target.uri)


def begins(opened: DeltaTable, batch: TableBatch) -> dict[int, int]:
    """From which offset of each partition on a table lacks the messages, as far as a micro-batch is about them."""
    wanted = batch.wanted
    known = _position(opened, wanted.topic, batch.topic_id, wanted.ends)
    if not known:
        done = opened.transaction_version(batch.query_id)
        return wanted.ends if done is not None and done >= batch.number else wanted.first
    return wanted.first | known


def _position(opened: DeltaTable, topic: str, topic_id: str, partitions: Iterable[int]) -> dict[int, int]:
    found = {number: opened.transaction_version(_application(topic, topic_id, number)) for number in partitions}
    return {number: offset for number, offset in found.items() if offset is not None}


def _records(topic: str, topic_id: str, offsets: Mapping[int, int]) -> list[Transaction]:
    return [Transaction(_application(topic, topic_id, number), offset) for number, offset in offsets.items()]


def _application(topic: str, topic_id: str, partition: int) -> str:
    return f"{topic}/{partition}@{topic_id}"


def archive_batch(spark: SparkSession, batch: TableBatch, client: Mapping[str, str], target: TableTarget) -> int:
    """Append a micro-batch of a topic to the table that is its copy, as far as the table lacks it.

    `client`: librdkafka settings for reaching the brokers. Returns how many of the messages are no results.
    """
    (row,) = in_one_task(spark, partial(_copy, batch, client, target), "foreign bigint")
    foreign: int = row["foreign"]
    return foreign


def _copy(batch: TableBatch, client: Mapping[str, str], target: TableTarget) -> Iterator[pa.RecordBatch]:
    """The task side."""
    foreign = 0

    def rows(first: dict[int, int]) -> Iterator[pa.RecordBatch]:
        nonlocal foreign
        for messages in map(record_batch, read(batch.wanted._replace(first=first), client)):
            results = read_results(batch.wanted.topic, messages.column("key"), messages.column("value"))
            foreign += len(messages) - len(results.rows)
            yield table_rows(target.table, results)

    append(target, batch, rows)
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


def append(target: TableTarget, batch: TableBatch, rows: Callable[[dict[int, int]], Iterator[pa.RecordBatch]]) -> None:
    """Append the rows of a micro-batch that a table lacks, in one commit that says up to where it then goes.

    `rows` is given from which offset of each partition on rows are lacking. All of them are taken; memory is bounded by
    what a file's writer holds. Where none come, not even a batch without rows, nothing is committed. Raises TableBusy
    when maintenance does not let go of the table, DeltaError, OSError and whatever `rows` raises: then nothing has been
    committed.
    """
    with table_lock(target.home, target.table, _LOCK_SECONDS):
        opened = open_table(target.uri)
        lacking = begins(opened, batch)
        some = rows(lacking)
        first = next(some, None)
        if first is not None:
            before = opened.version()
            _commit(opened, target.table, chain((first,), some), batch.records(lacking))
            if target.durable:
                force_commits(target.uri, before)
            note(target.uri)


def at_least(offsets: Mapping[int, int], rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which rows, with the columns `partition` and `offset`, have at least the offset of their partition."""
    partitions = rows.column("partition").to_numpy()
    least = np.zeros(len(rows), dtype=np.int64)
    for number in np.unique(partitions).tolist():
        least[partitions == number] = offsets.get(number, 0)
    chosen: Any = rows.column("offset").to_numpy() >= least
    return np.asarray(chosen, dtype=np.bool_)


def _commit(opened: DeltaTable, table: str, batches: Iterator[pa.RecordBatch], transactions: list[Transaction]) -> None:
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
            commit_properties=CommitProperties(app_transactions=transactions),
        )
    except Exception as error:
        # What was raised where rows are made comes back from Arrow as a text.
        raise (failures[0] if failures else error) from None
