"""The numbers of a picture: the last hour of prices, statistics and z-scores, thinned out, and of the streams' lag."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from orchestration.lakehouse.tables import Lakehouse
from orchestration.lakehouse.time_range import TimeRange, time_range_of
from orchestration.monitoring.charts import Curve, Curves
from tickhouse.contract.names import WINDOWS

HOUR_SECONDS = 3_600.0
BAND_WINDOW = "5m"
_BUCKET_SECONDS = 20
"""Of each such time the last row is shown: there are fewer dots in a picture than ticks in an hour."""
_NOTHING = Curve(np.array([], "datetime64[ms]"), np.array([]))


def read_curves(lakehouse: Lakehouse, lags: Mapping[str, Curve], symbol: str | None = None) -> Curves | None:
    """The last hour of one symbol, by default the one with most ticks in it; None when there is no price."""
    prices = time_range_of(lakehouse, "prices", HOUR_SECONDS)
    if prices is None:
        return None
    if symbol is None:
        found = lakehouse.query(
            f"SELECT symbol FROM prices WHERE {prices.condition} "  # noqa: S608
            "GROUP BY symbol ORDER BY count(*) DESC, symbol LIMIT 1",
            prices=("prices", prices.version),
        )
        symbol = str(found["symbol"][0])
    rows = _thinned(lakehouse, "prices", prices, symbol, {"price": "CAST(price AS DOUBLE)"})
    position = list(WINDOWS).index(BAND_WINDOW) + 1
    band = {name: f"stats[{position}]['{name}']" for name in ("avg_price", "std_price")}
    scores = {window: f"z_scores[{number}]['zscore_price']" for number, window in enumerate(WINDOWS, start=1)}
    statistics = _of_table(lakehouse, "moving_stats", symbol, band)
    z_scores = _of_table(lakehouse, "zscores", symbol, scores)
    return Curves(
        symbol,
        BAND_WINDOW,
        _curve(rows, "price"),
        _curve(statistics, "avg_price"),
        _curve(statistics, "std_price"),
        {window: _curve(z_scores, window) for window in WINDOWS},
        lags,
    )


def _of_table(lakehouse: Lakehouse, table: str, symbol: str, values: Mapping[str, str]) -> pa.Table | None:
    last = time_range_of(lakehouse, table, HOUR_SECONDS)
    return None if last is None else _thinned(lakehouse, table, last, symbol, values)


def _thinned(lakehouse: Lakehouse, table: str, last: TimeRange, symbol: str, values: Mapping[str, str]) -> pa.Table:
    """The last of `values` (name to SQL expression) in each bucket of time, in the order of time."""
    columns = ", ".join(f'last_value({value} ORDER BY timestamp) AS "{name}"' for name, value in values.items())
    # A symbol is of a few harmless characters, by the rule that let it in.
    return lakehouse.query(
        f"SELECT date_bin(INTERVAL '{_BUCKET_SECONDS} seconds', timestamp) AS moment, {columns} FROM {table} "  # noqa: S608
        f"WHERE {last.condition} AND symbol = '{symbol}' GROUP BY moment ORDER BY moment",
        **{table: (table, last.version)},
    )


def _curve(rows: pa.Table | None, name: str) -> Curve:
    if rows is None:
        return _NOTHING
    moments = rows["moment"].cast(pa.timestamp("ms", "UTC")).to_numpy().astype("datetime64[ms]")
    return Curve(moments, rows[name].to_numpy(zero_copy_only=False).astype(np.float64))
