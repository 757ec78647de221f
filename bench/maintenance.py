"""A week of one-minute commits to a Delta table, with and without maintenance at the end of each simulated day.

    python -m bench.maintenance [--days 7] [--commits 1440] [--rows 600]

Appends are those of a stream in number and size, made by `deltalake`. After each day the log's files are dated back to
that day, so that the log's retention acts as it would; removed files carry the time of their removal inside the log,
so what vacuum would remove a week later is counted at the end by a retention of nought, which only this program uses.
Prints, after each day: files in the largest partition, files in all, entries and size of the log, time to open the
table and time to read all of it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from orchestration.lakehouse.maintenance import Maintenance, Policy
from orchestration.lakehouse.tables import Lakehouse
from tickhouse.contract.names import WINDOWS

_TABLE = "zscores"
_PROPERTIES = {
    "delta.checkpointInterval": "100",
    "delta.enableChangeDataFeed": "true",
    "delta.logRetentionDuration": "interval 3 days",
}
"""The log is kept for less than the streams' week, so that a week shows what its retention does."""


def main() -> None:
    """Run both weeks."""
    parser = argparse.ArgumentParser(prog="python -m bench.maintenance", description=__doc__)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--commits", type=int, default=1_440)
    parser.add_argument("--rows", type=int, default=600, help="rows of a commit")
    options = parser.parse_args()
    for maintained in (False, True):
        with tempfile.TemporaryDirectory() as name:
            print(f"\n{'with' if maintained else 'without'} maintenance", flush=True)
            _week(Path(name), options.days, options.commits, options.rows, maintained=maintained)


def _week(home: Path, days: int, commits: int, rows: int, *, maintained: bool) -> None:
    lakehouse = Lakehouse(str(home / "lakehouse"))
    maintenance = Maintenance(lakehouse, home, Policy())
    path = home / "lakehouse" / _TABLE
    first = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first -= datetime.timedelta(days=days)
    print("day   largest partition   files      log entries   log MiB   open s   read s   maintenance s")
    for day in range(days):
        midnight = first + datetime.timedelta(days=day)
        _append_day(lakehouse.table_uri(_TABLE), midnight, commits, rows)
        _date_back(path / "_delta_log", midnight + datetime.timedelta(days=1))
        spent = 0.0
        if maintained:
            report = maintenance.maintain(_TABLE)
            assert report is not None
            spent = report.seconds
        print(f"{day + 1:>3}   {_figures(lakehouse, path)}   {spent:>13.1f}", flush=True)
    expected = days * commits * rows
    found = lakehouse.content(_TABLE).rows
    assert found == expected, f"{found} rows instead of {expected}"
    on_disk = _size(path, "date=*/*.parquet")
    old = DeltaTable(str(path)).vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False, full=True)
    active = lakehouse.content(_TABLE).size_bytes
    print(
        f"data on disk {on_disk:.0f} MiB, of which {len(old):,} files are for vacuum; active {active / 2**20:.0f} MiB"
    )


def _append_day(uri: str, midnight: datetime.datetime, commits: int, rows: int) -> None:
    dice = np.random.default_rng(midnight.toordinal())
    windows = list(WINDOWS)
    labels = pa.array(windows * rows)
    symbols = pa.array(["BTCUSDT"] * rows)
    dates = pa.array([midnight.date()] * rows)
    offsets = pa.array(range(0, rows * len(windows) + 1, len(windows)), pa.int32())
    start = round(midnight.timestamp() * 1_000_000)
    step = 86_400_000_000 // (commits * rows)
    table: str | DeltaTable = uri
    for number in range(commits):
        times = start + (number * rows + np.arange(rows)) * step
        scores = pa.StructArray.from_arrays(
            [labels, pa.array(dice.normal(size=rows * len(windows)))], names=["window", "zscore_price"]
        )
        batch = pa.table(
            {
                "symbol": symbols,
                "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
                "z_scores": pa.ListArray.from_arrays(offsets, scores),
                "date": dates,
            }
        )
        write_deltalake(table, batch, mode="append", partition_by=["date"], configuration=_PROPERTIES)
        if isinstance(table, str):
            table = DeltaTable(uri)


def _date_back(log: Path, day: datetime.datetime) -> None:
    """Date the entries that were written just now to the end of the simulated day."""
    recent = time.time() - 3_600
    for file in log.iterdir():
        if file.stat().st_mtime > recent:
            os.utime(file, (day.timestamp(), day.timestamp()))


def _figures(lakehouse: Lakehouse, path: Path) -> str:
    began = time.perf_counter()
    opened = DeltaTable(str(path))
    opening = time.perf_counter() - began
    began = time.perf_counter()
    query = f"SELECT count(*), avg(z_scores[1]['zscore_price']) FROM {_TABLE}"
    pa.table(QueryBuilder().register(_TABLE, opened).execute(query).read_all())
    reading = time.perf_counter() - began
    dates = pa.table(opened.get_add_actions(flatten=True))["partition.date"].value_counts().to_pylist()
    entries = len(list((path / "_delta_log").glob("*.json")))
    return (
        f"{max(each['counts'] for each in dates):>17,}   {lakehouse.content(_TABLE).files:>6,}   {entries:>11,}"
        f"   {_size(path, '_delta_log/*'):>7.1f}   {opening:>6.2f}   {reading:>6.2f}"
    )


def _size(path: Path, pattern: str) -> float:
    return sum(file.stat().st_size for file in path.glob(pattern)) / 2**20


if __name__ == "__main__":
    main()
