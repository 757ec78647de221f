"""The Delta tables: results as rows, each micro-batch once whatever fails or comes again, beside maintenance."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from orchestration.lakehouse.maintenance import Maintenance, Policy
from orchestration.lakehouse.tables import Lakehouse
from orchestration.settings import PROJECT_ROOT
from spark_jobs.jobs.prices import _Writer
from spark_jobs.sinks.delta import TableBatch, TableTarget, append, create_table, position, set_position
from tickhouse.contract.decoding import read_results, table_rows
from tickhouse.contract.encoding import form_messages, pack_results
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, ZSCORE_TOPIC
from tickhouse.contract.tables import COLUMNS, arrow_schema
from tickhouse.kafka.range_reader import RECORD_SCHEMA, OffsetRange

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


def batch(first: int, end: int, topic_id: str = "id", number: int = 0) -> TableBatch:
    """Of a topic with one partition."""
    return TableBatch(OffsetRange("topic", {0: first} if first else {}, {0: end}), topic_id, "query", number)


def messages(end: int) -> Callable[[dict[int, int]], Iterator[pa.RecordBatch]]:
    """The rows of `higher` that messages up to an offset are, with their offsets as values."""
    return lambda lacking: rows(lacking.get(0, 0), max(0, end - lacking.get(0, 0)))


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
    append(made, batch(0, 1), lambda lacking: iter([rows_of("higher", [message])]))
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


@pytest.mark.parametrize(
    "ranges",
    [
        pytest.param([(0, 10), (10, 20), (10, 20), (0, 10), (20, 30)], id="repeated"),
        pytest.param([(0, 10), (10, 20), (0, 13), (13, 17), (17, 30)], id="rolled back, and planned otherwise"),
        pytest.param([(0, 10), (20, 30)], id="the table is a copy that is older than the checkpoint"),
        pytest.param([(0, 10), (0, 30)], id="a new checkpoint"),
    ],
)
def test_a_table_goes_on_where_it_ends_whatever_a_checkpoint_says(
    tmp_path: Path, ranges: list[tuple[int, int]]
) -> None:
    made = target(tmp_path)
    for first, end in ranges:
        append(made, batch(first, end), messages(end))
    assert values(made) == list(range(30))
    assert position(made.uri, "topic", "id", [0, 1]) == {0: 30}


def test_a_topic_that_is_made_anew_begins_anew(tmp_path: Path) -> None:
    made = target(tmp_path)
    append(made, batch(0, 10), messages(10))
    append(made, batch(0, 5, "another"), messages(5))
    assert values(made) == sorted([*range(10), *range(5)])


def test_a_table_of_an_earlier_version_went_by_numbers(tmp_path: Path) -> None:
    made = target(tmp_path)
    properties = CommitProperties(app_transactions=[Transaction("query", 3)])
    old = pa.RecordBatchReader.from_batches(arrow_schema("higher"), rows(0, 10))
    write_deltalake(made.uri, old, mode="append", commit_properties=properties)
    append(made, batch(5, 10, number=3), messages(10))
    append(made, batch(10, 20, number=4), messages(20))
    append(made, batch(10, 20, number=4), messages(20))
    assert values(made) == list(range(20))


def test_a_table_can_be_told_to_go_on_elsewhere(tmp_path: Path) -> None:
    made = target(tmp_path)
    append(made, batch(0, 10), messages(10))
    set_position(made, "topic", "id", {0: 25})
    append(made, batch(25, 30), messages(30))
    assert values(made) == [*range(10), *range(25, 30)]


def test_without_messages_nothing_is_committed(tmp_path: Path) -> None:
    made = target(tmp_path)
    append(made, batch(0, 9), lambda lacking: iter([]))
    assert DeltaTable(made.uri).version() == 0
    # What came and is no row is done with, so it is not read again.
    append(made, batch(0, 9), lambda lacking: (some.slice(0, 0) for some in rows(0, 9)))
    assert (position(made.uri, "topic", "id", [0]), values(made)) == ({0: 9}, [])


def test_what_fails_in_the_middle_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    made = target(tmp_path)

    def damaged(lacking: dict[int, int]) -> Iterator[pa.RecordBatch]:
        yield from rows(0, 9)
        raise ValueError("unforeseen")

    with pytest.raises(ValueError, match="unforeseen"):
        append(made, batch(0, 9), damaged)
    append(made, batch(0, 9), messages(9))
    assert values(made) == list(range(9))


GOOD = b'{"symbol":"BTCUSDT","price":"99329.18000000","timestamp":"2025-05-08T04:12:38.300Z"}'


def records(wanted: OffsetRange) -> Iterator[pa.RecordBatch]:
    """Messages of which every third is a tick."""
    offsets = range(wanted.first.get(0, 0), wanted.ends[0])
    if offsets:
        count = len(offsets)
        values = [None if offset % 3 else GOOD for offset in offsets]
        columns = [["btc-price"] * count, [0] * count, list(offsets), [NOW] * count, [b"BTCUSDT"] * count, values]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, RECORD_SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def test_ticks_and_rejects_are_written_once_and_counted_from_the_tables(tmp_path: Path) -> None:
    prices, rejects = target(tmp_path, "prices"), target(tmp_path, "rejects")

    def write(first: int, end: int) -> dict[str, Any]:
        (report,) = next(_Writer(batch(first, end), prices, rejects).write(records)).to_pylist()
        return dict(report)

    assert write(0, 3) == {"kept": 1, "refused": 2, "event_time": NOW}
    assert write(0, 3) == {"kept": 1, "refused": 2, "event_time": None}, "nothing is read twice"
    assert DeltaTable(rejects.uri).to_pyarrow_table()["raw"].to_pylist() == [None, None]
    # A kill between the two tables, then another plan from further back.
    before = DeltaTable(rejects.uri).version()
    shutil.copytree(rejects.uri, tmp_path / "before")
    write(3, 9)
    shutil.rmtree(rejects.uri)
    shutil.copytree(tmp_path / "before", rejects.uri)
    assert DeltaTable(rejects.uri).version() == before
    write(0, 11)
    offsets = [DeltaTable(made.uri).to_pyarrow_table()["offset"].to_pylist() for made in (prices, rejects)]
    assert sorted(offsets[0]) == [0, 3, 6, 9]
    assert sorted(offsets[1]) == [1, 2, 4, 5, 7, 8, 10]


WRITER = """
import sys
from pathlib import Path
from tests.integration.test_archive import append, batch, messages, target
made = target(Path(sys.argv[1]))
for begin in range(0, 10_000, 50):
    append(made, batch(begin, begin + 50), messages(begin + 50))
    append(made, batch(begin, begin + 50), messages(begin + 50))
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
