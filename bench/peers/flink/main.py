"""PyFlink: SQL with OVER windows by time, from Kafka to Kafka, exactly once.

One query has one OVER window, so six are nested. A RANGE includes its lower end, so each is a millisecond short. Flink
keeps one watermark for all symbols.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

WINDOWS = {"30s": 30, "1m": 60, "5m": 300, "15m": 900, "30m": 1_800, "1h": 3_600}
_CHECKPOINT = "1 s"
_RUN = os.environ["PEER_GROUP"]
_STATISTICS = "ROW<`window` STRING, avg_price DOUBLE, std_price DOUBLE, `count` BIGINT>"
_SCORES = "ROW<`window` STRING, zscore_price DOUBLE>"
_KAFKA = f"'connector' = 'kafka', 'properties.bootstrap.servers' = '{os.environ['PEER_BOOTSTRAP']}'"


def interval(seconds: int) -> str:
    """An interval a millisecond shorter than so many seconds."""
    hours, rest = divmod(seconds * 1_000 - 1, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    whole, milliseconds = divmod(rest, 1_000)
    return f"INTERVAL '{hours:02}:{minutes:02}:{whole:02}.{milliseconds:03}' HOUR TO SECOND(3)"


def windows() -> str:
    """The query that adds the statistics of all windows to each distinct tick."""
    query = """(
        SELECT symbol, price, ts FROM (
            SELECT symbol, price, ts, ROW_NUMBER() OVER (PARTITION BY symbol, ts ORDER BY arrived) AS place FROM ticks
        ) WHERE place = 1
    )"""
    for name, seconds in WINDOWS.items():
        query = f"""(
            SELECT *, AVG(price) OVER w AS avg_{name}, STDDEV_SAMP(price) OVER w AS std_{name},
                COUNT(*) OVER w AS count_{name} FROM {query}
            WINDOW w AS (
                PARTITION BY symbol ORDER BY ts RANGE BETWEEN {interval(seconds)} PRECEDING AND CURRENT ROW
            )
        )"""
    return query


def entries(form: str) -> str:
    """An array with an entry for each window, in which `#` stands for the window's name."""
    return ", ".join(form.replace("#", name) for name in WINDOWS)


def sink(name: str, topic: str, column: str) -> str:
    """A table whose rows are messages on a topic."""
    return f"""CREATE TABLE {name} (`timestamp` STRING, symbol STRING, {column}) WITH (
        {_KAFKA}, 'topic' = '{topic}', 'key.format' = 'raw', 'key.fields' = 'symbol', 'value.format' = 'json',
        'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{_RUN}-{name}',
        'properties.transaction.timeout.ms' = '600000', 'properties.compression.type' = 'lz4'
    )"""


def main() -> None:
    options = Configuration()
    jars = ";".join(jar.absolute().as_uri() for jar in sorted(Path(os.environ["PEER_JARS"]).glob("*.jar")))
    for key, value in {
        "pipeline.jars": jars,
        "parallelism.default": "2",
        "execution.checkpointing.interval": _CHECKPOINT,
        "execution.checkpointing.dir": Path(os.environ["PEER_STATE"]).absolute().as_uri(),
        "state.backend.type": "hashmap",
        "pipeline.object-reuse": "true",
        "table.exec.state.ttl": "2 h",
        "table.exec.source.idle-timeout": "5 s",
        "table.local-time-zone": "UTC",
    }.items():
        options.set_string(key, value)
    tables = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(options).build()
    )
    tables.execute_sql(
        f"""CREATE TABLE ticks (
            symbol STRING, price DOUBLE, `timestamp` STRING,
            ts AS TO_TIMESTAMP(REPLACE(SUBSTRING(`timestamp`, 1, 23), 'T', ' ')), arrived AS PROCTIME(),
            WATERMARK FOR ts AS ts - INTERVAL '10.001' SECOND(2, 3)
        ) WITH ({_KAFKA}, 'topic' = 'btc-price', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json')"""
    )
    tables.execute_sql(
        sink(
            "moving",
            "btc-price-moving",
            f"stats ARRAY<{_STATISTICS}>",
        )
    )
    tables.execute_sql(sink("zscore", "btc-price-zscore", f"z_scores ARRAY<{_SCORES}>"))
    tables.execute_sql(f"CREATE TEMPORARY VIEW results AS SELECT * FROM {windows()}")
    moment = "DATE_FORMAT(ts, 'yyyy-MM-dd''T''HH:mm:ss.SSS') || 'Z'"
    statements = tables.create_statement_set()
    row = f"CAST(ROW('#', avg_#, std_#, count_#) AS {_STATISTICS})"
    statements.add_insert_sql(f"INSERT INTO moving SELECT {moment}, symbol, ARRAY[{entries(row)}] FROM results")
    row = f"CAST(ROW('#', (price - avg_#) / NULLIF(std_#, 0)) AS {_SCORES})"
    statements.add_insert_sql(f"INSERT INTO zscore SELECT {moment}, symbol, ARRAY[{entries(row)}] FROM results")
    statements.execute().wait()


if __name__ == "__main__":
    main()
