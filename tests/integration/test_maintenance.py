"""Maintenance of Delta tables: what is due, and that nobody notices but by the number of files. Without Spark."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from orchestration.lakehouse.maintenance import (
    NOBODY,
    Maintenance,
    MaintenanceError,
    PartitionFiles,
    Policy,
    Reader,
    due,
    held_back,
)
from orchestration.lakehouse.tables import ChangesUnavailable, Lakehouse
from orchestration.settings import PROJECT_ROOT
from spark_jobs.sinks.table_lock import TableBusy, table_lock
from tests.zscore_tables import append, rows

WEEK = 7 * 86_400
DAY_OF_TICKS = 864_000
POLICY = Policy(min_small_files=4)


def maintenance(lakehouse: Path, policy: Policy = POLICY) -> Maintenance:
    return Maintenance(Lakehouse(str(lakehouse)), lakehouse / "home", policy)


def content(lakehouse: Path, version: int | None = None) -> Counter[str]:
    """Every row of the table, as often as it is there."""
    return rows_of(DeltaTable(str(lakehouse / "zscores"), version=version))


def rows_of(opened: DeltaTable) -> Counter[str]:
    """Every row of the version that is open, as often as it is there."""
    table = pa.table(QueryBuilder().register("zscores", opened).execute("SELECT * FROM zscores").read_all())
    return Counter(map(str, table.to_pylist()))


def changed(lakehouse: Path, first: int, last: int) -> Counter[tuple[str, str]]:
    """The ticks that the change feed gives."""
    return Counter(
        (row["symbol"], str(row["timestamp"]))
        for batch in Lakehouse(str(lakehouse)).added("zscores", first, last, ["symbol", "timestamp"])
        for row in batch.to_pylist()
    )


def make_old(folder: Path, pattern: str) -> None:
    """Date files eight days back."""
    then = time.time() - WEEK - 86_400
    for file in folder.glob(pattern):
        os.utime(file, (then, then))


def test_a_partition_is_due_when_it_has_many_small_files() -> None:
    policy = Policy(target_file_bytes=100, min_small_files=3)
    partitions = [
        PartitionFiles("2026-01-03", (1, 2, 3)),
        PartitionFiles("2026-01-02", (49, 49, 50, 100)),
        PartitionFiles("2026-01-01", (10, 20, 30, 90)),
    ]
    assert due(partitions, policy) == ["2026-01-01", "2026-01-03"]
    assert due([], policy) == []


def test_what_a_reader_still_needs_is_held_back() -> None:
    now = datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)
    long_ago, lately = now - datetime.timedelta(days=6), now - datetime.timedelta(days=5, hours=23)
    assert not held_back(NOBODY, 10, now, POLICY)
    assert not held_back(Reader(9, lately), 10, now, POLICY)
    assert not held_back(Reader(10, long_ago), 10, now, POLICY)
    assert "version 9" in held_back(Reader(9, long_ago), 10, now, POLICY)
    assert held_back(Reader(None, unknown="it is away"), 10, now, POLICY) == "it is away"


def test_a_retention_below_a_week_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 7 days"):
        Policy(retention_days=6)


def test_many_files_become_few_and_no_reader_notices(tmp_path: Path) -> None:
    for number in range(12):
        append(tmp_path, rows(range(10 * number, 10 * number + 10)))
    append(tmp_path, rows(range(DAY_OF_TICKS, DAY_OF_TICKS + 10)))
    before, feed = content(tmp_path), changed(tmp_path, 0, 12)
    last_event = Lakehouse(str(tmp_path)).content("zscores").last_event_time
    open_snapshot = DeltaTable(str(tmp_path / "zscores"))
    half_read = Lakehouse(str(tmp_path)).snapshot("zscores", 12, ["symbol", "timestamp"])
    some = next(half_read).num_rows

    report = maintenance(tmp_path).maintain("zscores")
    assert report is not None
    assert (report.files_before, report.files_after, report.partitions) == (13, 2, ("2025-05-08",))
    assert "13 files" in report.text()
    assert content(tmp_path) == before
    assert Lakehouse(str(tmp_path)).content("zscores").last_event_time == last_event

    append(tmp_path, rows(range(1_000, 1_010)))
    newest = DeltaTable(str(tmp_path / "zscores")).version()
    assert newest == 14  # the compaction is version 13
    # Wherever a reader of the changes has got to, it gets each row once.
    assert changed(tmp_path, 0, newest) == feed + changed(tmp_path, 14, 14)
    assert sum(changed(tmp_path, 7, newest).values()) == 5 * 10 + 10 + 10
    assert sum(changed(tmp_path, 13, newest).values()) == 10
    assert not changed(tmp_path, 13, 13)
    # Who had opened the table before reads what was there then.
    assert rows_of(open_snapshot) == before
    assert some + sum(batch.num_rows for batch in half_read) == 130

    again = maintenance(tmp_path).maintain("zscores")
    assert again is not None and again.partitions == () and again.version == newest


def test_a_dry_run_and_a_table_that_is_not_there_change_nothing(tmp_path: Path) -> None:
    assert maintenance(tmp_path).maintain("zscores") is None
    for number in range(5):
        append(tmp_path, rows(range(10 * number, 10 * number + 10)))
    report = maintenance(tmp_path, Policy(min_small_files=4, dry_run=True)).maintain("zscores")
    assert report is not None and report.partitions == ("2025-05-08",) and "dry run" in report.text()
    assert DeltaTable(str(tmp_path / "zscores")).version() == 4


def test_what_is_old_goes_but_not_before_it_has_been_read(tmp_path: Path) -> None:
    table = tmp_path / "zscores"
    for number in range(6):
        append(tmp_path, rows(range(10 * number, 10 * number + 10)))
    orphan = table / "date=2025-05-08" / "part-left-by-a-killed-writer.parquet"
    orphan.write_bytes(b"half of it")
    make_old(table, "date=*/*.parquet")
    being_written = orphan.with_name("part-of-a-commit-to-come.parquet")
    being_written.write_bytes(b"half of it")
    before = content(tmp_path)
    week_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=7)
    held = maintenance(tmp_path).maintain("zscores", Reader(0, week_ago))
    assert held is not None and held.removed_files == 0 and "version 0" in held.note and held.files_after == 1
    away = maintenance(tmp_path).maintain("zscores", Reader(None, unknown="nobody knows"))
    assert away is not None and away.removed_files == 0 and away.note == "nobody knows"
    assert orphan.exists()

    notes = orphan.with_name("notes.txt")
    notes.write_text("of somebody who keeps notes there")
    make_old(table, "date=*/notes.txt")
    left = maintenance(tmp_path).maintain("zscores", Reader(6, week_ago))
    assert left is not None and left.removed_files == 0 and "1 files that no writer of tables made stay" in left.note
    assert notes.exists() and orphan.exists(), "what is of others is not to be told from what a killed writer left"
    notes.unlink()

    done = maintenance(tmp_path).maintain("zscores", Reader(6, week_ago))
    assert done is not None and done.removed_files == 1
    # The files that the compaction replaced are young as removed ones, however old they are as files.
    assert not orphan.exists() and being_written.exists() and len(list(table.glob("date=*/*.parquet"))) == 8
    assert content(tmp_path) == before


def test_a_table_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "zscores", pa.table({"date": ["2025-05-08"], "mine": [1]}), partition_by=["date"])
    with pytest.raises(MaintenanceError, match="has the columns mine, so Tickhouse did not make it"):
        maintenance(tmp_path).maintain("zscores")
    assert DeltaTable(tmp_path / "zscores").version() == 0


def test_a_cleaned_log_leaves_the_newest_and_says_what_it_cannot_tell(tmp_path: Path) -> None:
    table = tmp_path / "zscores"
    configuration = {"delta.enableChangeDataFeed": "true", "delta.logRetentionDuration": "interval 7 days"}
    write_deltalake(table, rows(range(10)), partition_by=["date"], configuration=configuration)
    for number in range(1, 4):
        append(tmp_path, rows(range(10 * number, 10 * number + 10)))
    DeltaTable(table).create_checkpoint()
    make_old(table / "_delta_log", "*")
    for number in range(4, 8):
        append(tmp_path, rows(range(10 * number, 10 * number + 10)))
    before = content(tmp_path)
    assert maintenance(tmp_path).maintain("zscores") is not None
    assert sorted(file.name for file in (table / "_delta_log").glob("*.json"))[0] == f"{3:020d}.json"
    assert content(tmp_path) == before
    with pytest.raises(ChangesUnavailable):
        changed(tmp_path, 0, 8)
    assert sum(changed(tmp_path, 4, 8).values()) == 40


def test_a_table_that_is_being_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        append(tmp_path, rows(range(10 * number, 10 * number + 10)))
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom spark_jobs.sinks.table_lock import table_lock\n"
        "with table_lock(Path(sys.argv[1]), 'zscores', 5):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr("orchestration.lakehouse.maintenance._LOCK_SECONDS", 0.2)
        with pytest.raises(TableBusy, match="zscores"):
            maintenance(tmp_path).maintain("zscores")
        os.kill(holder.pid, signal.SIGSTOP)  # suspended it still holds it
        with pytest.raises(TableBusy):
            maintenance(tmp_path).maintain("zscores")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert DeltaTable(str(tmp_path / "zscores")).version() == 4
    # The lock ends with its holder.
    with table_lock(tmp_path / "home", "zscores", 1):
        pass
    report = maintenance(tmp_path).maintain("zscores")
    assert report is not None and report.files_after == 1


@pytest.mark.parametrize("moment", ["the new file is written", "the commit is there"])
def test_killed_in_the_middle_it_leaves_the_table_right(tmp_path: Path, moment: str) -> None:
    table = tmp_path / "zscores"
    for number in range(60):
        append(tmp_path, rows(range(50 * number, 50 * number + 50)))
    before, version = content(tmp_path), DeltaTable(table).version()
    files = len(list(table.glob("date=*/*.parquet")))
    program = (
        "import sys\nfrom pathlib import Path\nfrom tests.integration.test_maintenance import maintenance\n"
        "maintenance(Path(sys.argv[1])).maintain('zscores')\n"
    )

    def reached() -> bool:
        if moment == "the commit is there":
            return (table / "_delta_log" / f"{version + 1:020d}.json").exists()
        return len(list(table.glob("date=*/*"))) > files

    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT_ROOT) as process:
        while not reached() and process.poll() is None:
            pass
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert content(tmp_path) == before
    report = maintenance(tmp_path).maintain("zscores")
    assert report is not None and report.files_after == 1
    assert content(tmp_path) == before
    # What the killed one left behind goes when it is old enough; what is in use stays however old it is.
    make_old(table, "date=*/*")
    removed = maintenance(tmp_path).maintain("zscores")
    assert removed is not None
    known = {file for old in range(version + 2) for file in DeltaTable(table, version=old).file_uris()}
    known |= set(DeltaTable(table).file_uris())
    assert {str(file) for file in table.glob("date=*/*")} <= known
    assert content(tmp_path) == before
