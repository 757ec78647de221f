"""Maintenance by `deltalake` while a Spark stream appends by Delta: every row once, and Spark goes on from there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

from orchestration.lakehouse import Lakehouse
from orchestration.local.artifacts import spark_jars
from orchestration.local.java import Java
from orchestration.maintenance import Maintenance, Policy
from orchestration.settings import PROJECT_ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.whole_machine]
BATCHES = 25
ROWS = 200
STREAM = """
import sys
from pyspark.sql import functions as F
from spark_jobs.archive import append_batch, create_table
from spark_jobs.run import _query_id
from spark_jobs.session import build_session
from spark_jobs.settings import StreamSettings

settings = StreamSettings()
spark = build_session("maintained", settings)
create_table(spark, "higher", settings)

def rows(frame):
    time = F.timestamp_millis(F.lit(1746709560000) + 100 * F.col("value"))
    return frame.select(
        F.lit("BTCUSDT").alias("symbol"), time.alias("timestamp"),
        (F.col("value") / 10).alias("higher_window"), F.to_date(time).alias("date"))

ids = set()
def append(frame, batch):
    ids.add(_query_id(frame))
    append_batch(frame, "higher", _query_id(frame), batch, settings)

source = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", %(rows)d).option("numPartitions", 1).load()
query = rows(source).writeStream.foreachBatch(append).option("checkpointLocation", f"{settings.home}/c").start()
while query.isActive and (query.lastProgress or {"batchId": 0})["batchId"] < %(batches)d - 1:
    query.awaitTermination(0.05)
query.stop()
print("appended", flush=True)
sys.stdin.readline()  # maintenance has finished: all that is in the log by now is in a checkpoint
[query_id] = ids
table = settings.table_uri("higher")
before = spark.read.format("delta").load(table).agg(F.count("*"), F.sum("higher_window")).collect()
for batch in (0, %(batches)d - 2):
    again = rows(spark.range(%(rows)d).withColumnRenamed("id", "value"))
    append_batch(again, "higher", query_id, batch, settings)
assert spark.read.format("delta").load(table).agg(F.count("*"), F.sum("higher_window")).collect() == before
append_batch(rows(spark.range(10**6, 10**6 + 7).withColumnRenamed("id", "value")), "higher", query_id, 10**6, settings)
print(before[0][0] + 7, flush=True)
spark.stop()
"""


def test_a_stream_and_maintenance_work_side_by_side(home: Path, tools: Path, java: Java) -> None:
    lakehouse = Lakehouse(str(home / "lakehouse"))
    maintenance = Maintenance(lakehouse, home, Policy(min_small_files=2))
    environment = {
        **os.environ,
        "JAVA_HOME": str(java.path),
        "TICKHOUSE_HOME": str(home),
        "TICKHOUSE_JARS": str(spark_jars(tools)),
    }
    program = STREAM % {"rows": ROWS, "batches": BATCHES}
    with (
        (home / "stream.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=PROJECT_ROOT,
            env=environment,
        ) as stream,
    ):
        assert stream.stdout is not None
        assert stream.stdin is not None
        os.set_blocking(stream.stdout.fileno(), False)
        compactions = 0
        while stream.poll() is None and stream.stdout.readline() != "appended\n":
            report = maintenance.maintain("higher")
            compactions += bool(report and report.partitions)
        os.set_blocking(stream.stdout.fileno(), True)
        maintenance.maintain("higher")
        opened = DeltaTable(lakehouse.table_uri("higher"))
        opened.create_checkpoint()
        for entry in (home / "lakehouse" / "higher" / "_delta_log").glob("*.json"):
            if int(entry.stem) < opened.version():
                entry.unlink()  # as a log's retention does, only more so: what Spark knows is in our checkpoint
        print("go on", file=stream.stdin, flush=True)
        said = stream.stdout.readline()
        assert stream.wait(60) == 0, (home / "stream.log").read_text()[-3_000:]
    expected = int(said)
    assert expected >= BATCHES * ROWS
    assert compactions >= 3
    newest = DeltaTable(lakehouse.table_uri("higher"))
    table = pa.table(QueryBuilder().register("higher", newest).execute("SELECT * FROM higher").read_all())
    values = sorted(round(10 * value) for value in table["higher_window"].to_pylist())
    assert values == [*range(expected - 7), *range(10**6, 10**6 + 7)]
    assert lakehouse.content("higher").rows == expected
