"""The Delta tables: how they are made, how a micro-batch is appended, and the rows copied from an output topic.

Belongs here: making tables, appending exactly once, and the topic-to-table copy. Does not belong here: which columns
they have (`tables`), how results come to be, or the `prices` and `rejects` tables' rows (`prices`).

A table is fed from its topic, never from the computation: as the topic holds each result exactly once, and the
micro-batch is recorded in Delta's log with the data, the table does too.
"""

from __future__ import annotations

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from spark_jobs.settings import StreamSettings
from spark_jobs.table_lock import table_lock_of_jvm
from spark_jobs.tables import COLUMNS, ddl

_PROPERTIES = {
    # A checkpoint of the log costs as much as two commits; readers cope with a hundred small entries.
    "delta.checkpointInterval": "100",
    # Readers can ask for the rows of a range of versions, whatever maintenance did to the files.
    "delta.enableChangeDataFeed": "true",
    # As long as removed files are kept: older versions cannot be read anyway, and a week has 30,000 of them.
    "delta.logRetentionDuration": "interval 7 days",
}
_LOCK_SECONDS = 300.0
"""Far longer than maintenance holds a table. The query ends then and says so, and is started again."""


def _fields(table: str) -> list[StructField]:
    columns = StructType.fromDDL(ddl(table))
    assert isinstance(columns, StructType)
    return columns.fields


def create_table(spark: SparkSession, table: str, settings: StreamSettings) -> None:
    """Create a table unless it is there, so that it can be queried before the first result."""
    builder = DeltaTable.createIfNotExists(spark).location(settings.table_uri(table)).partitionedBy("date")
    for field, column in zip(_fields(table), COLUMNS[table], strict=True):
        builder = builder.addColumn(field.name, field.dataType, comment=column.text)
    for key, value in _PROPERTIES.items():
        builder = builder.property(key, value)
    builder.execute()


def archive_rows(messages: DataFrame, table: str) -> DataFrame:
    """The rows of a table from Kafka records of its topic; a message that is not as it must be is a fault."""
    fields = [field for field in _fields(table) if field.name != "date"]
    parsed = F.from_json(
        F.col("value").cast("string"),
        StructType(fields),
        {"mode": "FAILFAST", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSX"},
    )
    # One task writes one file: these commits are few, and small files are what readers pay for.
    return messages.coalesce(1).select(parsed.alias("row")).select("row.*").withColumn("date", F.to_date("timestamp"))


def append_batch(rows: DataFrame, table: str, query_id: str, batch: int, settings: StreamSettings) -> None:
    """Append the rows of a micro-batch to a table, unless an earlier attempt at that micro-batch has done so.

    Raises TableBusy when maintenance does not let go of the table.
    """
    with table_lock_of_jvm(rows.sparkSession, settings.home, table, _LOCK_SECONDS):
        writer = rows.write.format("delta").mode("append").partitionBy("date")
        writer.option("txnAppId", query_id).option("txnVersion", batch).save(settings.table_uri(table))
