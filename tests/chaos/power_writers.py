"""What is killed in a trial of a power cut: it writes on and on, and prints the number of what is acknowledged."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pyarrow as pa

from spark_jobs.sinks.delta import TableBatch, TableTarget, append, create_table
from tickhouse.contract.tables import arrow_schema
from tickhouse.files import ForcedFolder
from tickhouse.kafka.range_reader import OffsetRange


def delta(folder: Path, durable: bool) -> None:
    """Micro-batches of ten rows to a table."""
    target = TableTarget("higher", str(folder / "lakehouse" / "higher"), folder, durable)
    create_table(target)
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for batch in count():
        rows = [
            {"symbol": "BTCUSDT", "timestamp": day + datetime.timedelta(seconds=10 * batch + place)}
            | {"higher_window": float(batch), "date": day.date()}
            for place in range(10)
        ]
        made = pa.RecordBatch.from_pylist(rows, schema=arrow_schema("higher"))
        wanted = OffsetRange("power", {0: 10 * batch}, {0: 10 * (batch + 1)})
        append(target, TableBatch(wanted, "id", "power", batch), partial(_once, made))
        print(batch, flush=True)


def _once(rows: pa.RecordBatch, _lacking: dict[int, int]) -> Iterator[pa.RecordBatch]:
    yield rows


def checkpoint(folder: Path, durable: bool) -> None:
    """The files of micro-batches as Spark writes them: beside their place, and renamed."""
    place = folder / "checkpoints" / "moving"
    for name in ("offsets", "commits", "state/0/0"):
        (place / name).mkdir(parents=True)
    forced = ForcedFolder(place)
    for batch in count():
        _write(place, f"state/0/0/{batch + 1}.changelog", batch)
        _write(place, f"offsets/{batch}", batch)
        if durable:
            forced.force()
        print(batch, flush=True)
        _write(place, f"commits/{batch}", batch)


def _write(folder: Path, name: str, batch: int) -> None:
    path = folder / name
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(f"{name} {batch}")
    unfinished.rename(path)


if __name__ == "__main__":
    {"delta": delta, "checkpoint": checkpoint}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3] == "True")
