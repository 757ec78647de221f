"""What was found in a running system, as plain data: what the readers hand over and the comparison judges.

Values are what the stores hold, not yet judged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.reference.model import WINDOW_NAMES, Message

MOVING_TOPIC = "btc-price-moving"
ZSCORE_TOPIC = "btc-price-zscore"
HIGHER_TOPIC = "btc-price-higher"
LOWER_TOPIC = "btc-price-lower"
OUTPUT_TOPICS = (MOVING_TOPIC, ZSCORE_TOPIC, HIGHER_TOPIC, LOWER_TOPIC)
TABLES = ("prices", "rejects", "moving_stats", "zscores", "higher", "lower")
DATABASE = "btc"
COLLECTIONS = {window: f"btc-price-zscore-{window}" for window in WINDOW_NAMES}


class Record(NamedTuple):
    """One message of an output topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Table:
    """One Delta table: `schema` maps a column to its type (`decimal(18,8)`, `array<struct<a:double>>`).

    Timestamps in `columns` are µs since the epoch, dates are days since the epoch, the rest are Python's own.
    """

    schema: dict[str, str]
    partition_columns: list[str]
    columns: dict[str, list[Any]]
    version: int = 0


@dataclass
class Collection:
    """One MongoDB collection; a BSON date is a `bson.DatetimeMS`. `indexes` holds each index's (field, order) list."""

    documents: list[dict[str, Any]]
    indexes: list[list[tuple[str, int]]]


@dataclass
class Snapshot:
    """A system as it was found. None = not read, on purpose; a missing table or collection is absent from its dict."""

    messages: list[Message]
    topics: dict[str, list[Record]]
    tables: dict[str, Table] | None = None
    collections: dict[str, Collection] | None = None
    faults: list[str] = field(default_factory=list)
    """What makes the reading itself unfit for a verdict, as sentences."""
    notes: list[str] = field(default_factory=list)
