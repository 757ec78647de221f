"""The comparison finds nothing in a faultless system and finds each kind of fault that is put into one."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bson import DatetimeMS, Int64
from deltalake import write_deltalake

from tests.reference import ideal, readers
from tests.reference.acceptance import format_timestamp
from tests.reference.compare import bits, compare_snapshot
from tests.reference.forms import Malformed, strict_json
from tests.reference.model import WINDOW_NAMES, evaluate, keyed
from tests.reference.report import KINDS, Report
from tests.reference.snapshot import (
    HIGHER_TOPIC,
    LOWER_TOPIC,
    MOVING_TOPIC,
    OUTPUT_TOPICS,
    TABLES,
    ZSCORE_TOPIC,
    Snapshot,
    Table,
)
from tests.reference.stream import START, generate

LINES = [line.value for line in generate(seed=11, symbols=["BTCUSDT", "SHIBUSDT"], ticks=700, gaps=1)]
MESSAGES = [
    keyed(0, offset, START + 10**9 + offset, value) for offset, value in enumerate([*LINES[:50], None, *LINES[50:]])
]
FAULTLESS = ideal.snapshot(MESSAGES, evaluate(MESSAGES))


@pytest.fixture
def system() -> Snapshot:
    return copy.deepcopy(FAULTLESS)


def only_fault(report: Report, output: str, **counts: int) -> None:
    """Asserts that this output has exactly these counts and that every other output is right."""
    verdict = report.tally(output)
    assert verdict.counts == dict.fromkeys(KINDS, 0) | counts, report.text()
    assert not report.ok
    assert [tally.output for tally in report.tallies if not tally.ok] == [output], report.text()
    for kind in counts:
        assert verdict.examples[kind]
        assert f"{output}: {kind}: {verdict.examples[kind][0]}" in report.text()


def tables_of(system: Snapshot) -> dict[str, Table]:
    assert system.tables is not None
    return system.tables


def test_a_faultless_system_is_right(system: Snapshot) -> None:
    report = compare_snapshot(system, sent=[message.value for message in MESSAGES if message.value is not None] or None)
    # The tombstone is no line of any file.
    assert report.tally("topic btc-price (as sent)").counts == dict.fromkeys(KINDS, 0) | {"unexpected": 1}
    report = compare_snapshot(system)
    assert report.ok, report.text()
    assert len(report.tallies) == len(OUTPUT_TOPICS) + len(TABLES) + len(WINDOW_NAMES)
    assert all(tally.expected == tally.found > 0 for tally in report.tallies)
    assert report.text().endswith("everything is right")


def test_nothing_at_all_is_not_right() -> None:
    report = compare_snapshot(Snapshot([], {topic: [] for topic in OUTPUT_TOPICS}))
    assert not report.ok
    assert "no message" in report.text()


def test_a_fault_of_the_reading_fails(system: Snapshot) -> None:
    system.faults.append("it moved")
    assert not compare_snapshot(system).ok


# --- topics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", OUTPUT_TOPICS)
def test_a_missing_message(system: Snapshot, topic: str) -> None:
    del system.topics[topic][17]
    only_fault(compare_snapshot(system), f"topic {topic}", missing=1)


@pytest.mark.parametrize("topic", OUTPUT_TOPICS)
def test_a_repeated_message(system: Snapshot, topic: str) -> None:
    system.topics[topic].append(system.topics[topic][17])
    only_fault(compare_snapshot(system), f"topic {topic}", duplicate=1)


@pytest.mark.parametrize("topic", OUTPUT_TOPICS)
def test_a_missing_topic(system: Snapshot, topic: str) -> None:
    del system.topics[topic]
    assert compare_snapshot(system).tally(f"topic {topic}").faults == ["the topic does not exist"]


@pytest.mark.parametrize("topic", OUTPUT_TOPICS)
def test_a_result_published_before_it_is_final(system: Snapshot, topic: str) -> None:
    expected = evaluate(MESSAGES)
    unfinished = max(time for symbol, time in expected.units if symbol == "BTCUSDT")
    record = system.topics[topic][17]
    value = json.loads(record.value or b"")
    value |= {"symbol": "BTCUSDT", "timestamp": format_timestamp(unfinished)}
    system.topics[topic].append(record._replace(key=b"BTCUSDT", value=json.dumps(value).encode()))
    only_fault(compare_snapshot(system), f"topic {topic}", unexpected=1)


def alter(system: Snapshot, topic: str, change: Callable[[dict[str, Any]], object], index: int = 200) -> None:
    """Changes one message's value in place."""
    record = system.topics[topic][index]
    value = json.loads(record.value or b"")
    change(value)
    system.topics[topic][index] = record._replace(value=json.dumps(value).encode())


def without_tables(system: Snapshot) -> Snapshot:
    """For altered topic values: the copies would rightly be reported as different."""
    system.tables = system.collections = None
    return system


@pytest.mark.parametrize(
    ("topic", "change"),
    [
        (MOVING_TOPIC, lambda value: value["stats"][5].update(count=value["stats"][5]["count"] + 1)),
        (MOVING_TOPIC, lambda value: value["stats"][5].update(count=float(value["stats"][5]["count"]))),
        (MOVING_TOPIC, lambda value: value["stats"][5].update(count=True)),
        (MOVING_TOPIC, lambda value: value["stats"][0].update(avg_price=value["stats"][0]["avg_price"] * (1 + 2e-9))),
        (MOVING_TOPIC, lambda value: value["stats"][0].update(avg_price=str(value["stats"][0]["avg_price"]))),
        (MOVING_TOPIC, lambda value: value["stats"][0].update(avg_price=None)),
        (MOVING_TOPIC, lambda value: value["stats"][5].update(std_price=value["stats"][5]["std_price"] * (1 - 2e-9))),
        (MOVING_TOPIC, lambda value: value["stats"][5].update(std_price=None)),
        (MOVING_TOPIC, lambda value: value["stats"][5].update(std_price=0.0)),
        (MOVING_TOPIC, lambda value: value["stats"].reverse()),
        (MOVING_TOPIC, lambda value: value["stats"].pop()),
        (MOVING_TOPIC, lambda value: value["stats"].append(value["stats"][5])),
        (MOVING_TOPIC, lambda value: value["stats"][3].pop("std_price")),
        (MOVING_TOPIC, lambda value: value["stats"][3].update(median=1)),
        (MOVING_TOPIC, lambda value: value.update(extra=1)),
        (
            ZSCORE_TOPIC,
            lambda value: value["z_scores"][5].update(zscore_price=value["z_scores"][5]["zscore_price"] + 1),
        ),
        (ZSCORE_TOPIC, lambda value: value["z_scores"][5].update(zscore_price=None)),
        (ZSCORE_TOPIC, lambda value: value["z_scores"][5].update(zscore_price="0.1")),
        (ZSCORE_TOPIC, lambda value: value["z_scores"][5].pop("zscore_price")),
        (ZSCORE_TOPIC, lambda value: value["z_scores"][5].update(window="60m")),
        (HIGHER_TOPIC, lambda value: value.update(higher_window=value["higher_window"] + 0.001)),
        (HIGHER_TOPIC, lambda value: value.update(higher_window=math.nextafter(value["higher_window"], 30))),
        (HIGHER_TOPIC, lambda value: value.update(higher_window=None)),
        (LOWER_TOPIC, lambda value: value.update(lower_window=value["lower_window"] - 0.001)),
        (LOWER_TOPIC, lambda value: value.update(lower_window=False)),
    ],
)
def test_an_altered_message(system: Snapshot, topic: str, change: Callable[[dict[str, Any]], object]) -> None:
    alter(system, topic, change)
    report = compare_snapshot(without_tables(system))
    verdict = report.tally(f"topic {topic}")
    assert verdict.counts["wrong"] == 1, report.text()
    assert verdict.counts["duplicate"] == verdict.counts["unexpected"] == 0
    assert [tally.output for tally in report.tallies if not tally.ok] == [f"topic {topic}"]


@pytest.mark.parametrize(
    "stamp", ["2025-05-08T23:15:00Z", "2025-05-08T23:15:00.000+00:00", "2025-05-08 23:15:00.000Z", 1746746100000, None]
)
def test_a_timestamp_in_another_form(system: Snapshot, stamp: object) -> None:
    alter(system, HIGHER_TOPIC, lambda value: value.update(timestamp=stamp))
    only_fault(compare_snapshot(system), f"topic {HIGHER_TOPIC}", wrong=1, missing=1)


def test_a_wrong_key(system: Snapshot) -> None:
    for key in (None, b"", b"ETHUSDT"):
        system.topics[HIGHER_TOPIC][3] = system.topics[HIGHER_TOPIC][3]._replace(key=key)
        only_fault(compare_snapshot(system), f"topic {HIGHER_TOPIC}", wrong=1)


def test_a_symbol_on_two_partitions(system: Snapshot) -> None:
    system.topics[LOWER_TOPIC][100] = system.topics[LOWER_TOPIC][100]._replace(partition=2)
    only_fault(compare_snapshot(system), f"topic {LOWER_TOPIC}", wrong=1)


def test_messages_out_of_order_are_noted(system: Snapshot) -> None:
    records = system.topics[MOVING_TOPIC]
    records[0], records[1] = records[1], records[0]
    report = compare_snapshot(system)
    assert report.ok
    assert any("after a later tick" in note for note in report.notes)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1,"a":1}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b"[" * 100_000,
        b'{"a":' + b"1" * 5000 + b"}",
    ],
)
def test_output_that_is_not_strict_json(value: bytes | None) -> None:
    with pytest.raises(Malformed):
        strict_json(value)


# --- Delta ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_row(system: Snapshot, name: str) -> None:
    for column in tables_of(system)[name].columns.values():
        del column[3]
    only_fault(compare_snapshot(system), f"delta {name}", missing=1)


@pytest.mark.parametrize("name", TABLES)
def test_a_repeated_row(system: Snapshot, name: str) -> None:
    for column in tables_of(system)[name].columns.values():
        column.append(column[3])
    only_fault(compare_snapshot(system), f"delta {name}", duplicate=1)


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_date(system: Snapshot, name: str) -> None:
    tables_of(system)[name].columns["date"][3] += 7
    only_fault(
        compare_snapshot(system), f"delta {name}", wrong=1, **({} if name in ("prices", "rejects") else {"missing": 1})
    )


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_table(system: Snapshot, name: str) -> None:
    owed = len(tables_of(system).pop(name).columns["date"])
    report = compare_snapshot(system)
    only_fault(report, f"delta {name}", missing=owed)
    assert report.tally(f"delta {name}").faults == ["the table does not exist"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("change", ["type", "missing", "extra", "partition"])
def test_a_wrong_schema(system: Snapshot, name: str, change: str) -> None:
    table = tables_of(system)[name]
    column = next(iter(table.schema))
    if change == "type":
        table.schema[column] = "float"
    elif change == "missing":
        del table.schema[column], table.columns[column]
    elif change == "extra":
        table.schema["extra"] = "string"
    else:
        table.partition_columns = []
    report = compare_snapshot(system)
    assert len(report.tally(f"delta {name}").faults) == 1
    assert not report.ok


def set_cell(system: Snapshot, table: str, column: str, value: object, row: int = 3) -> None:
    tables_of(system)[table].columns[column][row] = value


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("prices", "price", Decimal("0.00000001")),
        ("prices", "price", None),
        ("prices", "symbol", "ETHUSDT"),
        ("prices", "timestamp", (START + 999) * 1000),
        ("prices", "timestamp", START * 1000 + 1),
        ("prices", "topic", "btc-prices"),
        ("prices", "ingested_at", None),
        ("rejects", "raw", b"another"),
        ("rejects", "raw", None),
        ("rejects", "reason", ""),
        ("rejects", "reason", None),
        ("rejects", "ingested_at", None),
    ],
)
def test_an_altered_arrival(system: Snapshot, table: str, column: str, value: object) -> None:
    set_cell(system, table, column, value)
    only_fault(compare_snapshot(system), f"delta {table}", wrong=1)


def test_other_coordinates(system: Snapshot) -> None:
    set_cell(system, "prices", "offset", 10**6)
    only_fault(compare_snapshot(system), "delta prices", missing=1, unexpected=1)


def test_a_tombstone_is_kept_as_null(system: Snapshot) -> None:
    row = tables_of(system)["rejects"].columns["raw"].index(None)
    set_cell(system, "rejects", "raw", b"", row)
    only_fault(compare_snapshot(system), "delta rejects", wrong=1)


@pytest.mark.parametrize(
    ("table", "member", "column"), [("moving_stats", "stats", "avg_price"), ("zscores", "z_scores", "zscore_price")]
)
def test_a_row_must_have_the_bits_of_the_message(system: Snapshot, table: str, member: str, column: str) -> None:
    cell = tables_of(system)[table].columns[member][200][5]
    cell[column] = math.nextafter(cell[column], math.inf)
    report = compare_snapshot(system)
    only_fault(report, f"delta {table}", wrong=1)
    assert "differs from the topic's" in report.text()


def test_a_row_is_judged_by_itself_when_its_message_is_missing(system: Snapshot) -> None:
    del system.topics[MOVING_TOPIC][200]
    tables_of(system)["moving_stats"].columns["stats"][200][5]["avg_price"] *= 1.1
    report = compare_snapshot(system)
    assert report.tally(f"topic {MOVING_TOPIC}").counts["missing"] == 1
    assert report.tally("delta moving_stats").counts["wrong"] == 1


def test_bits_tell_the_zeros_apart() -> None:
    assert bits((0.0, None, 1)) != bits((-0.0, None, 1))
    assert bits((1.5, None, 1)) == bits((1.5, None, 1))


# --- MongoDB ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOW_NAMES)
def test_a_missing_document(system: Snapshot, window: str) -> None:
    assert system.collections is not None
    del system.collections[window].documents[4]
    only_fault(compare_snapshot(system), f"mongo btc-price-zscore-{window}", missing=1)


@pytest.mark.parametrize("window", WINDOW_NAMES)
def test_a_missing_collection(system: Snapshot, window: str) -> None:
    assert system.collections is not None
    owed = len(system.collections.pop(window).documents)
    only_fault(compare_snapshot(system), f"mongo btc-price-zscore-{window}", missing=owed)


def test_a_missing_index(system: Snapshot) -> None:
    assert system.collections is not None
    system.collections["5m"].indexes = [[("_id", 1)], [("timestamp", 1), ("symbol", 1)]]
    report = compare_snapshot(system)
    only_fault(report, "mongo btc-price-zscore-5m")
    assert "index" in report.text()


@pytest.mark.parametrize(
    ("member", "value", "missing"),
    [
        ("_id", "BTCUSDT|2025-05-08T23:15:00.000+00:00", 1),
        ("_id", 7, 1),
        ("timestamp", "2025-05-08T23:15:00.000Z", 1),
        ("timestamp", DatetimeMS(START), 1),
        ("symbol", None, 1),
        ("window", "1m", 1),
        ("zscore_price", "0.5", 1),
        ("zscore_price", Int64(0), 1),
        ("zscore_price", math.nan, 1),
        ("zscore_price", 12.5, 0),
        ("zscore_price", None, 0),
        ("loaded_at", DatetimeMS(START), 1),
    ],
)
def test_an_altered_document(system: Snapshot, member: str, value: object, missing: int) -> None:
    assert system.collections is not None
    next(one for one in system.collections["30s"].documents if one["zscore_price"] is not None)[member] = value
    counts = {"wrong": 1} | ({"missing": 1} if missing else {})
    only_fault(compare_snapshot(system), "mongo btc-price-zscore-30s", **counts)


def test_a_document_without_a_score(system: Snapshot) -> None:
    assert system.collections is not None
    del system.collections["30s"].documents[200]["zscore_price"]
    only_fault(compare_snapshot(system), "mongo btc-price-zscore-30s", wrong=1, missing=1)


def test_a_document_must_have_the_bits_of_the_message(system: Snapshot) -> None:
    assert system.collections is not None
    document = system.collections["1h"].documents[200]
    document["zscore_price"] = math.nextafter(document["zscore_price"], math.inf)
    only_fault(compare_snapshot(system), "mongo btc-price-zscore-1h", wrong=1)


def test_a_second_document_of_one_tick(system: Snapshot) -> None:
    assert system.collections is not None
    documents = system.collections["1h"].documents
    documents.append(documents[200] | {"_id": "another"})
    only_fault(compare_snapshot(system), "mongo btc-price-zscore-1h", wrong=1)


# --- the input as sent ------------------------------------------------------------------------------------------


def sent_verdict(values: list[bytes], sent: list[bytes], partitions: int = 1) -> dict[str, int]:
    messages = [keyed(at % partitions, at // partitions, START, value) for at, value in enumerate(values)]
    report = compare_snapshot(Snapshot(messages, {}), sent=sent)
    return {kind: count for kind, count in report.tally("topic btc-price (as sent)").counts.items() if count}


def test_the_input_as_sent() -> None:
    lines = [b"a", b"b", b"a", b"c", b"d"]
    assert sent_verdict(lines, lines) == {}
    assert sent_verdict(lines, lines, partitions=2) == {}
    assert sent_verdict([b"a", b"b", b"c", b"d"], lines) == {"missing": 1}
    assert sent_verdict([*lines, b"a"], lines) == {"duplicate": 1}
    assert sent_verdict([*lines, b"d "], lines) == {"unexpected": 1}
    assert sent_verdict([b"a", b"b", b"a", b"d", b"c"], lines) == {"wrong": 1}


# --- reading real Delta tables ----------------------------------------------------------------------------------

ARROW_TYPES = {
    "string": pa.string(),
    "binary": pa.binary(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "decimal(18,8)": pa.decimal128(18, 8),
    ideal.STATS_TYPE: pa.list_(
        pa.struct({"window": pa.string(), "avg_price": pa.float64(), "std_price": pa.float64(), "count": pa.int64()})
    ),
    ideal.ZSCORES_TYPE: pa.list_(pa.struct({"window": pa.string(), "zscore_price": pa.float64()})),
}


def write_tables(folder: Path, tables: dict[str, Table]) -> None:
    for name, table in tables.items():
        columns = {
            column: pa.array(table.columns[column], type=ARROW_TYPES[kind]) for column, kind in table.schema.items()
        }
        write_deltalake(str(folder / name), pa.table(columns), partition_by=["date"])


def test_tables_come_back_from_disk_as_they_were_written(tmp_path: Path, system: Snapshot) -> None:
    write_tables(tmp_path, tables_of(system))
    system.tables = readers.read_tables(str(tmp_path))
    report = compare_snapshot(system)
    assert report.ok, report.text()


def test_tables_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    assert readers.read_tables(str(tmp_path)) == {}
