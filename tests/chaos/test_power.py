"""What was acknowledged survives a power cut with `durable`, and would not without."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from spark_jobs.sinks.delta import TableTarget, create_table
from spark_jobs.sinks.delta_log import set_torn_commits_aside
from tests.chaos.power import unavailable
from tests.chaos.power_cuts import outcome
from tests.chaos.volatile_disk import ROOT, Mode, VolatileDisk
from tests.zscore_tables import append, rows

_needs_fuse = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def _disk(folder: Path, mode: Mode, now: list[float]) -> VolatileDisk:
    return VolatileDisk(folder, mode, clock=lambda: now[0])


def _write(disk: VolatileDisk, number: int, content: bytes, offset: int = 0) -> None:
    handle = os.open(disk.path(number), os.O_RDWR)
    disk.write(number, handle, offset, content)
    os.close(handle)


@pytest.mark.parametrize(
    ("mode", "synced", "seconds", "left"),
    [
        ("posix", "", 60, {}),
        ("posix", "data", 60, {}),
        ("posix", "name", 0, {"new": ""}),
        ("posix", "data and name", 0, {"new": "content"}),
        ("ext4", "", 0, {}),
        ("ext4", "", 6, {"new": ""}),
        ("ext4", "", 31, {"new": "content"}),
        ("ext4", "data", 0, {"new": "content"}),
        ("ext4", "name", 0, {"new": ""}),
    ],
)
def test_a_power_cut_leaves_what_was_synced(
    tmp_path: Path, mode: Mode, synced: str, seconds: float, left: dict[str, str]
) -> None:
    now = [0.0]
    disk = _disk(tmp_path, mode, now)
    made = disk.make(ROOT, b"unfinished", 0o100644)
    _write(disk, made.number, b"content")
    disk.rename(ROOT, b"unfinished", ROOT, b"new")
    if "data" in synced:
        disk.sync(made.number)
    if "name" in synced:
        disk.sync(ROOT)
    now[0] = seconds
    disk.age()
    disk.cut()
    disk.put_down()
    assert {path.name: path.read_text() for path in (tmp_path / "tree").iterdir()} == left


@pytest.mark.parametrize(("mode", "left"), [("posix", "old old"), ("ext4", "new")])
def test_a_file_that_was_replaced_is_the_old_or_the_new(tmp_path: Path, mode: Mode, left: str) -> None:
    now = [0.0]
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("old old")
    disk = _disk(tmp_path, mode, now)
    made = disk.make(ROOT, b"unfinished", 0o100644)
    _write(disk, made.number, b"new")
    disk.rename(ROOT, b"unfinished", ROOT, b"file")
    now[0] = 6.0
    disk.age()
    disk.cut()
    disk.put_down()
    assert {path.name: path.read_text() for path in (tmp_path / "tree").iterdir()} == {"file": left}


def test_what_was_overwritten_cut_and_appended_is_as_it_was_synced(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"a" * 10_000)
    disk = _disk(tmp_path, "posix", [0.0])
    number = disk.entries(ROOT)[b"file"]
    _write(disk, number, b"b" * 100, 5_000)
    disk.truncate(number, 4_000)
    _write(disk, number, b"c" * 9_000, 3_000)
    disk.cut()
    disk.put_down()
    assert (tmp_path / "tree" / "file").read_bytes() == b"a" * 10_000


@_needs_fuse
@pytest.mark.parametrize("part", ["delta", "checkpoint"])
@pytest.mark.parametrize("mode", ["posix", "ext4", "any"])
def test_what_was_acknowledged_survives(part: str, mode: Mode, tmp_path: Path) -> None:
    assert outcome(part, tmp_path, mode, 0, tmp_path, durable=True, seconds=0.4) == "exact"


@_needs_fuse
@pytest.mark.parametrize("part", ["delta", "checkpoint"])
def test_without_durable_it_would_not(part: str, tmp_path: Path) -> None:
    assert outcome(part, tmp_path, "posix", 0, tmp_path, durable=False, seconds=0.4) != "exact"


@_needs_fuse
@pytest.mark.integration
@pytest.mark.parametrize(("part", "mode"), [("broker", "ext4"), ("broker", "any"), ("database", "posix")])
def test_servers_keep_what_they_have_acknowledged(part: str, mode: Mode, tmp_path: Path, tools: Path) -> None:
    assert outcome(part, tmp_path, mode, 0, tools, durable=True, seconds=1.0) == "exact"


def _torn(tmp_path: Path, tear: str) -> None:
    table = tmp_path / "zscores"
    newest = sorted((table / "_delta_log").glob("*.json"))[-1]
    if tear == "entry":
        newest.write_bytes(b"")
    elif tear == "half an entry":
        newest.write_bytes(newest.read_bytes()[:-40])
    else:
        data = max(table.rglob("date=*/*.parquet"), key=lambda path: path.stat().st_mtime_ns)
        data.unlink() if tear == "file gone" else data.write_bytes(b"")


@pytest.mark.parametrize("tear", ["entry", "half an entry", "file gone", "file empty"])
def test_a_torn_commit_is_undone(tmp_path: Path, tear: str) -> None:
    append(tmp_path, rows(range(3)))
    append(tmp_path, rows(range(3, 5)))
    _torn(tmp_path, tear)
    assert set_torn_commits_aside(str(tmp_path / "zscores")) == 1
    assert DeltaTable(str(tmp_path / "zscores")).to_pyarrow_table().num_rows == 3
    append(tmp_path, rows(range(3, 5)))
    assert set_torn_commits_aside(str(tmp_path / "zscores")) == 0
    assert DeltaTable(str(tmp_path / "zscores")).to_pyarrow_table().num_rows == 5


def test_a_torn_checkpoint_of_the_log_is_left_out(tmp_path: Path) -> None:
    for tick in range(3):
        append(tmp_path, rows([tick]))
    DeltaTable(str(tmp_path / "zscores")).create_checkpoint()
    (checkpoint,) = (tmp_path / "zscores" / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    shutil.copytree(tmp_path / "zscores", tmp_path / "higher")
    create_table(TableTarget("higher", str(tmp_path / "higher"), tmp_path))
    assert DeltaTable(str(tmp_path / "higher")).to_pyarrow_table().num_rows == 3
