"""The Delta tables: results as rows, each micro-batch once whatever fails or comes again, beside maintenance."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from orchestration.lakehouse import Lakehouse
from orchestration.maintenance import Maintenance, Policy
from orchestration.settings import PROJECT_ROOT
from spark_jobs.archive import TableTarget, append, create_table
from spark_jobs.messages import form_messages, pack_results
from spark_jobs.offset_ranges import RECORD_SCHEMA
from spark_jobs.prices import _Writer
from spark_jobs.published import read_results, table_rows
from spark_jobs.tables import COLUMNS, arrow_schema
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, ZSCORE_TOPIC

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
NOW = 1_746_677_558_300
TIMES = np.array([NOW, NOW + 100])
ONE, OTHER = np.array([[1.5, np.nan]] * 6), np.array([[99_329.18, 1e-8]] * 6)
RESULTS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "moving_stats": (MOVING_TOPIC, (OTHER, ONE, np.array([[1, 2]] * 6))),
    "zscores": (ZSCORE_TOPIC, (ONE,)),
    "higher": (HIGHER_TOPIC, (np.array([8_258, 20_000]),)),
    "lower": (LOWER_TOPIC, (np.array([1, 20_000]),)),
}


def target(tmp_path: Path, table: str = "higher") -> TableTarget:
    """A new table."""
    made = TableTarget(table, str(tmp_path / "lakehouse" / table), tmp_path / "home")
    create_table(made)
    return made


def rows(first: int, count: int) -> Iterator[pa.RecordBatch]:
    """Rows of `higher` with the values first, first + 1, …"""
    numbers = np.arange(first, first + count)
    for part in np.array_split(numbers, 3):
        moments = pa.array((NOW + 100 * part) * 1_000).cast(pa.timestamp("us", tz="UTC"))
        columns = [["BTCUSDT"] * len(part), moments, part.astype(float), moments.cast(pa.date32())]
        yield pa.RecordBatch.from_arrays(columns, schema=arrow_schema("higher"))


def values(made: TableTarget) -> list[int]:
    column: pa.ChunkedArray = DeltaTable(made.uri).to_pyarrow_table()[COLUMNS[made.table][2].name]
    return sorted(int(value) for value in column.to_pylist())


def rows_of(table: str, messages: list[bytes]) -> pa.RecordBatch:
    keys = [json.loads(message)["symbol"].encode() for message in messages]
    return table_rows(table, read_results(RESULTS[table][0], pa.array(keys, pa.binary()), pa.array(messages)))


@pytest.mark.parametrize("table", RESULTS)
def test_rows_are_what_the_messages_say(table: str) -> None:
    topic, columns = RESULTS[table]
    symbols, messages = form_messages(topic, [("BTC-USD_1.", pack_results(TIMES, *columns))])
    stored = rows_of(table, messages).to_pylist()
    for message, row in zip(messages, stored, strict=True):
        said = json.loads(message)
        assert row.pop("date").isoformat() == said["timestamp"][:10]
        text = row.pop("timestamp").isoformat(timespec="milliseconds").replace("+00:00", "Z")
        assert {"timestamp": text, **row} == said
    assert symbols == [row["symbol"] for row in stored]


@pytest.mark.parametrize("text", ["1970-01-01T00:00:00.000Z", "2000-02-29T23:59:59.999Z", "2261-12-31T23:59:59.999Z"])
def test_every_date_is_that_of_its_time(tmp_path: Path, text: str) -> None:
    message = f'{{"timestamp":"{text}","symbol":"A","higher_window":0.5}}'.encode()
    made = target(tmp_path)
    append(made, iter([rows_of("higher", [message])]), "query", 0)
    (row,) = Lakehouse(str(tmp_path / "lakehouse")).query("SELECT * FROM higher", higher=("higher", None)).to_pylist()
    assert (row["date"].isoformat(), row["timestamp"].isoformat(timespec="milliseconds")[:23] + "Z") == (
        text[:10],
        text,
    )


def test_a_table_is_made_once_with_comments_and_properties(tmp_path: Path) -> None:
    made = target(tmp_path, "zscores")
    identity = create_table(made)
    opened = DeltaTable(made.uri)
    assert (opened.version(), str(opened.metadata().id)) == (0, identity)
    assert opened.metadata().partition_columns == ["date"]
    assert opened.metadata().configuration["delta.enableChangeDataFeed"] == "true"
    said = [(name, comment) for name, _, comment in Lakehouse(str(tmp_path / "lakehouse")).columns("zscores")]
    assert said == [(column.name, column.text) for column in COLUMNS["zscores"]]


def test_a_micro_batch_that_comes_again_is_there_once(tmp_path: Path) -> None:
    made = target(tmp_path)
    for batch in (0, 1, 1, 0, 2):
        append(made, rows(10 * batch, 10), "query", batch)
    append(made, rows(30, 10), "another", 0)
    assert values(made) == list(range(40))
    assert DeltaTable(made.uri).version() == 4


def test_without_rows_nothing_is_committed(tmp_path: Path) -> None:
    made = target(tmp_path)
    append(made, iter([]), "query", 0)
    append(made, (batch.slice(0, 0) for batch in rows(0, 9)), "query", 1)
    assert DeltaTable(made.uri).version() == 0


def test_what_fails_in_the_middle_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    made = target(tmp_path)

    def damaged() -> Iterator[pa.RecordBatch]:
        yield from rows(0, 9)
        raise ValueError("unforeseen")

    with pytest.raises(ValueError, match="unforeseen"):
        append(made, damaged(), "query", 0)
    append(made, rows(0, 9), "query", 0)
    assert values(made) == list(range(9))


def test_ticks_and_rejects_are_written_once_and_counted_from_the_tables(tmp_path: Path) -> None:
    writer = _Writer("query", 7, target(tmp_path, "prices"), target(tmp_path, "rejects"))
    good = b'{"symbol":"BTCUSDT","price":"99329.18000000","timestamp":"2025-05-08T04:12:38.300Z"}'
    messages = [["btc-price"] * 3, [0] * 3, [0, 1, 2], [NOW] * 3, [b"BTCUSDT", b"", None], [good, b"x", None]]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(messages, RECORD_SCHEMA, strict=True)],
        schema=RECORD_SCHEMA,
    )
    reports = [next(writer.write(iter([batch]))).to_pylist() for _ in range(2)]
    assert reports == [[{"kept": 1, "refused": 2, "event_time": NOW}]] * 2
    assert DeltaTable(str(tmp_path / "lakehouse" / "rejects")).to_pyarrow_table()["raw"].to_pylist() == [b"x", None]


WRITER = """
import sys
from pathlib import Path
from tests.integration.test_archive import append, rows, target
made = target(Path(sys.argv[1]))
for batch in range(200):
    append(made, rows(50 * batch, 50), "query", batch)
    append(made, rows(50 * batch, 50), "query", batch)
"""


def test_a_stream_and_maintenance_work_side_by_side(tmp_path: Path) -> None:
    made = target(tmp_path)
    maintenance = Maintenance(Lakehouse(str(tmp_path / "lakehouse")), made.home, Policy(min_small_files=2))
    compactions = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=PROJECT_ROOT) as stream:
        while stream.poll() is None:
            report = maintenance.maintain("higher")
            compactions += bool(report and report.partitions)
    assert (stream.returncode, compactions > 2) == (0, True)
    assert values(made) == list(range(200 * 50))
    added = Lakehouse(str(tmp_path / "lakehouse")).added("higher", 0, DeltaTable(made.uri).version(), ["higher_window"])
    assert sorted(int(value) for batch in added for value in batch["higher_window"].to_pylist()) == values(made)
