"""The Delta tables as a declaration: their columns with types, meanings and units."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from tickhouse.contract.names import STATS_TYPE, Z_SCORES_TYPE


class Column(NamedTuple):
    """One column. `type` as in SQL's DDL; `unit` is empty where a value has none."""

    name: str
    type: str
    description: str
    unit: str = ""

    @property
    def text(self) -> str:
        """The description, with the unit where there is one."""
        return f"{self.description} [{self.unit}]" if self.unit else self.description


_SYMBOL = Column("symbol", "string", "trading pair")
_TIMESTAMP = Column("timestamp", "timestamp", "time of the tick, whole milliseconds", "UTC")
_DATE = Column("date", "date", "date of the tick", "UTC")
_KAFKA = (
    Column("topic", "string", "Kafka topic of the message"),
    Column("partition", "int", "Kafka partition of the message"),
    Column("offset", "bigint", "Kafka offset of the message"),
    Column("ingested_at", "timestamp", "time at which the message was read", "UTC"),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "prices": (
        _SYMBOL,
        Column("price", "decimal(18,8)", "observed price", "quote currency"),
        _TIMESTAMP,
        *_KAFKA,
        _DATE,
    ),
    "rejects": (
        Column("raw", "binary", "the message as it came; null for a tombstone"),
        Column("reason", "string", "why it is not a tick"),
        *_KAFKA,
        Column("date", "date", "date of arrival", "UTC"),
    ),
    "moving_stats": (
        _SYMBOL,
        _TIMESTAMP,
        Column(
            "stats",
            STATS_TYPE,
            "per window: mean and sample standard deviation of the price (null below two ticks), and number of ticks",
            "avg_price, std_price: quote currency; count: ticks",
        ),
        _DATE,
    ),
    "zscores": (
        _SYMBOL,
        _TIMESTAMP,
        Column(
            "z_scores",
            Z_SCORES_TYPE,
            "per window: (price - mean) / standard deviation, null where there is none",
            "standard deviations",
        ),
        _DATE,
    ),
    "higher": (
        _SYMBOL,
        _TIMESTAMP,
        Column("higher_window", "double", "time to the first strictly higher price within 20 s, else 20.0", "seconds"),
        _DATE,
    ),
    "lower": (
        _SYMBOL,
        _TIMESTAMP,
        Column("lower_window", "double", "time to the first strictly lower price within 20 s, else 20.0", "seconds"),
        _DATE,
    ),
}
"""The columns of each table, in their order; all tables are partitioned by `date`."""

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "binary": pa.binary(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "decimal(18,8)": pa.decimal128(18, 8),
    STATS_TYPE: pa.list_(
        pa.struct(
            [
                ("window", pa.string()),
                ("avg_price", pa.float64()),
                ("std_price", pa.float64()),
                ("count", pa.int64()),
            ]
        )
    ),
    Z_SCORES_TYPE: pa.list_(pa.struct([("window", pa.string()), ("zscore_price", pa.float64())])),
}


def arrow_schema(table: str) -> pa.Schema:
    """The columns of a table in Arrow's types, each with its text as the comment that Delta keeps."""
    return pa.schema(
        pa.field(column.name, _ARROW_TYPES[column.type], metadata={"comment": column.text}) for column in COLUMNS[table]
    )
