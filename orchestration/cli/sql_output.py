"""The rows of an answer as JSON lines, CSV or Parquet, batch by batch."""

from __future__ import annotations

import csv
import datetime
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.lakehouse.sql import Answer

_ROW_GROUP_BYTES = 32 * 2**20
"""What is gathered before it is written: readers pay for small row groups, and memory for large ones."""


class OutputExists(ValueError):
    """There is a file of that name, and nobody said to replace it."""


def as_text(value: Any) -> str:
    """A value that JSON has no form for: times as ISO 8601, bytes as text, all else as Python prints it."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def cell(value: Any) -> str:
    """One value as text: nothing for null, JSON for what has parts."""
    if value is None:
        return ""
    return json.dumps(value, default=as_text) if isinstance(value, (list, dict)) else as_text(value)


def write_json(answer: Answer, stream: IO[str]) -> int:
    """One JSON object a line; returns how many."""
    count = 0
    for row in answer.rows():
        stream.write(json.dumps(row, default=as_text) + "\n")
        count += 1
    return count


def write_csv(answer: Answer, stream: IO[str]) -> int:
    """A line of names, then one for each row; returns how many rows."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(answer.schema.names)
    count = 0
    for batch in answer.batches:
        writer.writerows(zip(*([cell(value) for value in column.to_pylist()] for column in batch.columns), strict=True))
        count += batch.num_rows
    return count


def _write_parquet(answer: Answer, file: IO[bytes]) -> int:
    count = 0
    with pq.ParquetWriter(file, answer.schema, compression="zstd") as writer:
        for batches in _gathered(answer.batches):
            table = pa.Table.from_batches(batches, answer.schema)
            writer.write_table(table)
            count += table.num_rows
    return count


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    gathered: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        gathered.append(batch)
        size += batch.nbytes
        if size >= _ROW_GROUP_BYTES:
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered


_TEXT_WRITERS: dict[str, Callable[[Answer, IO[str]], int]] = {"csv": write_csv, "json": write_json}


def write_file(answer: Answer, file: Path, form: str, *, overwrite: bool) -> int:
    """Write a file of the form csv, json or parquet; returns how many rows.

    The file appears when it is complete. Raises OutputExists when it is there already and is not to be replaced,
    OSError, and QueryFailed; none of them leaves anything of it.
    """
    with _appearing(file, overwrite=overwrite) as partial:
        if form == "parquet":
            with partial.open("wb") as binary:
                return _write_parquet(answer, binary)
        with partial.open("w", encoding="utf-8", newline="") as text:
            return _TEXT_WRITERS[form](answer, text)


@contextmanager
def _appearing(file: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path beside `file` to write to, which takes its name when all went well."""
    if file.exists() and not file.is_file():
        yield file  # a pipe or a device is written to: replacing it would take it away from everybody
        return
    _refuse_existing(file, overwrite=overwrite)
    file = file.resolve()  # of a link, what it leads to
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    partial.open("x").close()  # one that is there is not ours to delete
    try:
        yield partial
        _refuse_existing(file, overwrite=overwrite)  # it may have come up since
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _refuse_existing(file: Path, *, overwrite: bool) -> None:
    if not overwrite and file.exists():
        raise OutputExists(f"{file} exists: name another file, or say --overwrite to replace it")
