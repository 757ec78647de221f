"""The Delta table of gaps: messages that were lost in a topic, and that somebody decided to go on past."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.exceptions import TableNotFoundError

from spark_jobs.checkpoints.gaps import Gap
from tickhouse.contract.topology import GAPS_TABLE
from tickhouse.table_checksums import note, open_table, require_files

NAME = GAPS_TABLE
SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("from_offset", pa.int64()),
        ("to_offset", pa.int64()),
        ("messages", pa.int64()),
        ("reason", pa.string()),
        ("skipped_at", pa.timestamp("us", tz="UTC")),
    ]
)


def append(lakehouse: str, gaps: Sequence[tuple[str, Gap]], at: datetime.datetime) -> None:
    """Add gaps with the queries that go past them, in one commit. Raises DeltaError, OSError."""
    rows = [{**gap._asdict(), "query": query, "messages": gap.messages, "skipped_at": at} for query, gap in gaps]
    write_deltalake(_uri(lakehouse), pa.Table.from_pylist(rows, SCHEMA), mode="append")
    note(_uri(lakehouse))


def rows(lakehouse: str) -> list[dict[str, Any]]:
    """All gaps ever gone past, oldest first; empty when there are none. Raises DeltaError, OSError."""
    try:
        table = open_table(_uri(lakehouse))
    except TableNotFoundError:
        return []
    require_files(table)
    found: list[dict[str, Any]] = table.to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: (row["skipped_at"], row["query"], row["topic"], row["partition"]))


def _uri(lakehouse: str) -> str:
    return f"{lakehouse.rstrip('/')}/{NAME}"
