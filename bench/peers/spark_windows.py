"""Spark's own windows, for the two peers that differ only in them: six aggregations, their union, one message for each
symbol and moment, the z-scores by a join in a second query, all to Kafka by Spark's own sink.

Settings are those that its documentation recommends for a small machine and much state: few shuffle partitions and
RocksDB for state.
"""

from __future__ import annotations

import json
import os
import time
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

WINDOWS = {
    "30s": "30 seconds",
    "1m": "1 minute",
    "5m": "5 minutes",
    "15m": "15 minutes",
    "30m": "30 minutes",
    "1h": "1 hour",
}
LATENESS = "10 seconds"
_TICK = "symbol string, price double, timestamp timestamp"
_ENTRY = "window:string,avg_price:double,std_price:double,count:bigint"
_STATISTICS = f"timestamp timestamp, symbol string, stats array<struct<{_ENTRY}>>"
_TIME_FORM = "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"


def session() -> SparkSession:
    """A local session on all cores."""
    jars = os.pathsep.join(map(str, sorted(Path(os.environ["PEER_JARS"]).glob("*.jar"))))
    return (
        SparkSession.builder.master("local[*]")
        .config("spark.driver.extraClassPath", jars)
        .config("spark.driver.memory", "3g")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "4")
        .config(
            "spark.sql.streaming.stateStore.providerClass",
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        )
        .getOrCreate()
    )


def read(spark: SparkSession, topic: str, form: str) -> DataFrame:
    """A topic's messages as rows, with a watermark."""
    messages = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", os.environ["PEER_BOOTSTRAP"])
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", os.environ.get("PEER_BATCH", "100000"))
        .load()
    )
    rows = messages.select(F.from_json(F.col("value").cast("string"), form).alias("row")).select("row.*")
    return rows.withWatermark("timestamp", LATENESS)


def statistics(ticks: DataFrame, slide: str | None) -> DataFrame:
    """One row for each symbol and end of windows, with the statistics of the windows that end there."""

    def one(name: str, length: str) -> DataFrame:
        window = F.window("timestamp", length, slide) if slide else F.window("timestamp", length)
        aggregated = ticks.groupBy("symbol", window).agg(
            F.avg("price").alias("avg_price"), F.stddev_samp("price").alias("std_price"), F.count("*").alias("count")
        )
        order = F.lit(list(WINDOWS).index(name)).alias("order")
        entry = F.struct(order, F.lit(name).alias("window"), "avg_price", "std_price", "count")
        return aggregated.select("symbol", F.window_time("window").alias("moment"), entry.alias("entry"))

    rows = reduce(DataFrame.unionByName, [one(name, length) for name, length in WINDOWS.items()])
    by_end = rows.groupBy("symbol", F.window("moment", slide or WINDOWS["30s"]).alias("end"))
    together = by_end.agg(F.sort_array(F.collect_list("entry")).alias("entries"))
    stats = F.expr("transform(entries, e -> struct(e.window, e.avg_price, e.std_price, e.count))")
    return together.select(F.col("end.end").alias("timestamp"), "symbol", stats.alias("stats"))


def scores(ticks: DataFrame, moving: DataFrame) -> DataFrame:
    """The z-scores of ticks for which there are statistics."""
    joined = ticks.join(moving, ["symbol", "timestamp"])
    entry = "struct(s.window, (price - s.avg_price) / nullif(s.std_price, 0) as zscore_price)"
    return joined.select("timestamp", "symbol", F.expr(f"transform(stats, s -> {entry})").alias("z_scores"))


def publish(results: DataFrame, topic: str) -> StreamingQuery:
    """Start the query that sends results to a topic."""
    shown = results.withColumn("timestamp", F.date_format("timestamp", _TIME_FORM))
    message = F.to_json(F.struct("timestamp", "symbol", results.columns[-1]), {"ignoreNullFields": "false"})
    return (
        shown.select(F.col("symbol").alias("key"), message.alias("value"))
        .writeStream.format("kafka")
        .option("kafka.bootstrap.servers", os.environ["PEER_BOOTSTRAP"])
        .option("topic", topic)
        .option("checkpointLocation", f"{os.environ['PEER_STATE']}/{topic}")
        .outputMode("append")
        .start()
    )


def run(slide: str | None) -> None:
    """Run both queries, and print once in a while how many ticks the first has worked through."""
    spark = session()
    spark.sparkContext.setLogLevel("ERROR")
    moving = publish(statistics(read(spark, "btc-price", _TICK), slide), "btc-price-moving")
    publish(scores(read(spark, "btc-price", _TICK), read(spark, "btc-price-moving", _STATISTICS)), "btc-price-zscore")
    while all(query.isActive for query in spark.streams.active) and moving.isActive:
        progress = moving.lastProgress
        if progress is not None:
            ends = json.loads(progress.json)["sources"][0]["endOffset"] or {}
            print(f'{{"ticks":{sum(ends.get("btc-price", {}).values())}}}', flush=True)
        time.sleep(1)
    for query in spark.streams.active or [moving]:
        print(query.exception(), flush=True)
