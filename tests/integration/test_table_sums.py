"""Checksums of a real table's files: when they are noted, what is refused, what is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from orchestration.lakehouse.maintenance import Maintenance, MaintenanceError, Policy
from orchestration.lakehouse.sql import QueryFailed, query
from orchestration.lakehouse.tables import Lakehouse
from orchestration.monitoring.table_check_queries import check_table
from tests.chaos.bit_flips import make_table
from tickhouse.errors import damage_in
from tickhouse.table_checksums import (
    FOLDER,
    TableDamaged,
    damaged,
    data_files,
    note,
    note_all,
    open_table,
    require_changes,
)

DAYS = ("2026-01-01", "2026-01-02")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return Path(make_table(tmp_path).uri)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def of_day(table: Path, day: str) -> Path:
    return min(table.glob(f"date={day}/*.parquet"))


def rows(table: Path, condition: str = "true") -> int:
    return len(list(query(str(table.parent), f"SELECT * FROM higher WHERE {condition}").rows()))


def test_every_file_is_noted_and_none_is_taken_for_unused(table: Path) -> None:
    files = [path.relative_to(table) for path in table.rglob("*.parquet")]
    files += [path.relative_to(table) for path in table.rglob("*.json")]
    assert len(files) > 20 and all((table / FOLDER / name).is_file() for name in files if name.parts[0] != FOLDER)
    opened = DeltaTable(str(table))
    assert opened.vacuum(0, dry_run=False, full=True, enforce_retention_duration=False) == []
    assert damaged(str(table)) == []
    assert rows(table) == 240


def test_only_who_reads_a_damaged_file_is_refused(table: Path) -> None:
    path = of_day(table, DAYS[1])
    damage(path)
    assert rows(table, f"date = '{DAYS[0]}'") > 30
    with pytest.raises(QueryFailed, match=f"{path} is damaged.*put that file back.*`tickhouse backfill {DAYS[1]}`"):
        rows(table)
    with pytest.raises(TableDamaged, match=path.name):
        list(Lakehouse(str(table.parent)).added("higher", 1, DeltaTable(str(table)).version(), ["symbol"]))
    # As it is, once somebody has decided that.
    (table / FOLDER / path.relative_to(table)).unlink()
    require_changes(str(table), 1, DeltaTable(str(table)).version())


def test_a_plan_names_all_of_many_files(table: Path) -> None:
    assert len(data_files(DeltaTable(str(table)))) > 8
    for path in table.glob("date=*/*.parquet"):
        content = path.read_bytes()
        damage(path)
        with pytest.raises(QueryFailed, match=path.name):
            rows(table, "symbol IS NOT NULL")
        path.write_bytes(content)


def test_a_damaged_log_is_refused_by_all_and_other_tables_are_not(table: Path, tmp_path: Path) -> None:
    lakehouse = Lakehouse(str(table.parent))
    shutil.copytree(table, table.with_name("lower"))
    entry = max((table / "_delta_log").glob("*.json"))
    entry.write_text(entry.read_text().replace('"numRecords', '"numrecords'))
    for look in (lakehouse.version, lakehouse.content, lakehouse.columns):
        with pytest.raises(TableDamaged, match=entry.name):
            look("higher")
    with pytest.raises(QueryFailed, match=entry.name):
        rows(table)
    outcomes = check_table(lakehouse, "higher", None, None)
    assert outcomes and not any(outcome.passed for outcome in outcomes.values())
    assert lakehouse.version("lower") is not None
    assert list(query(str(table.parent), "SELECT count(*) AS n FROM lower").rows()) == [{"n": 240}]


def test_maintenance_passes_nothing_damaged_on_and_says_all(table: Path, tmp_path: Path) -> None:
    maintenance = Maintenance(Lakehouse(str(table.parent)), tmp_path, Policy(min_small_files=2))
    before = DeltaTable(str(table)).version()
    paths = [of_day(table, day) for day in DAYS]
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        damage(path)
    with pytest.raises(MaintenanceError, match=f"(?s){paths[0].name} is damaged.*{paths[1].name} is damaged"):
        maintenance.maintain("higher")
    assert DeltaTable(str(table)).version() == before
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    report = maintenance.maintain("higher")
    assert report is not None and report.partitions == DAYS
    assert rows(table) == 240
    assert not damaged(str(table))
    for path in map(Path, DeltaTable(str(table)).file_uris()):
        assert (table / FOLDER / path.relative_to(table)).is_file(), "what was compacted is noted"


def test_what_was_committed_without_a_record_gets_one(table: Path) -> None:
    newest = max((table / "_delta_log").glob("*.json"))
    (table / FOLDER / newest.relative_to(table)).unlink()
    note(str(table))
    damage(newest)
    with pytest.raises(TableDamaged):
        open_table(str(table))


def test_records_that_are_torn_or_of_files_that_are_gone_are_put_right(table: Path) -> None:
    path = of_day(table, DAYS[0])
    record = table / FOLDER / path.relative_to(table)
    whole = record.read_bytes()
    for torn in (b"", whole[:5], b"\0" * len(whole)):
        record.write_bytes(torn)
        assert rows(table) == 240
    strange = record.with_name("part-gone.parquet")
    strange.write_bytes(whole)
    assert note_all(str(table)) == 1
    assert record.read_bytes() == whole and not strange.exists()


def test_a_commit_that_is_undone_is_forgotten(table: Path, tmp_path: Path) -> None:
    newest = max((table / "_delta_log").glob("*.json"))
    before = newest.read_text()
    of_it = [table / path for path in data_files(DeltaTable(str(table))) if path in newest.read_text()]
    of_it[0].unlink()
    make_table(tmp_path)  # the same stream, started again
    assert newest.read_text() != before and rows(table) == 240 and not damaged(str(table))


def test_what_a_worker_raises_is_known_by_its_text() -> None:
    text = "Traceback ...\nspark_jobs.table_sums.TableDamaged: the file x is damaged: do this\n\tat org.apache"
    assert str(damage_in(text)) == "the file x is damaged: do this"
    assert str(damage_in("a.TopicDamaged: t partition 1 is")) == "t partition 1 is"
    assert damage_in("CheckpointDamaged: other") is None
