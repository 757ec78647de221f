"""What a computing query reads: topics as a source of Spark that gives packed ticks.

Spark starts a process for the source of each query, asks it how far the topics reach, and has it give what lies between
two offsets, which then waits in Spark's block store for the one task that wants it. As that process lives as long as
the query, it has the next messages while Spark is still at work on the last.
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.datasource import DataSource, DataSourceStreamReader
from pyspark.sql.types import StructType

from spark_jobs.sources.packing import PACKED_TYPE
from spark_jobs.sources.source_config import Reading
from spark_jobs.sources.source_reader import SourceReader

_NAME = "packed-topics"


def packed_stream(spark: SparkSession, reading: Reading) -> DataFrame:
    """The stream of rows of `packing.PACKED_TYPE`, in one partition, from the first offsets on."""

    class PackedTopics(DataSource):
        """Made for each stream: what it is to read then need not be among the options, which plans show."""

        @classmethod
        def name(cls) -> str:
            return _NAME

        def schema(self) -> str:
            return PACKED_TYPE

        def streamReader(self, schema: StructType) -> DataSourceStreamReader:
            return SourceReader(reading)

    _look_for_no_others(spark)
    spark.dataSource.register(PackedTopics)
    return spark.readStream.format(_NAME).load()


def _look_for_no_others(spark: SparkSession) -> None:
    """Have Spark start no process of its own to look for data sources among all that is installed: there are none."""
    jvm: Any = spark._jvm
    none = jvm.scala.Some(jvm.org.apache.spark.api.python.PythonUtils.toScalaMap({}))
    manager = getattr(jvm, "org.apache.spark.sql.execution.datasources.DataSourceManager$")
    getattr(getattr(manager, "MODULE$"), "dataSourceBuilders_$eq")(none)
