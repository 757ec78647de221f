"""Pathway: each tick joined by time with those of the hour before it, `interval_join`, from Kafka to Kafka.

Each result is made of all ticks of its windows, so a tick costs as much as there are ticks in an hour. Sums are of
differences to the tick's own price, which keeps doubles exact enough. Pathway keeps one clock for all symbols.
"""

from __future__ import annotations

import datetime
import json
import math
import os

import pathway as pw

WINDOWS = {"30s": 30, "1m": 60, "5m": 300, "15m": 900, "30m": 1_800, "1h": 3_600}
LATENESS_MS = 10_000
_SETTINGS = {"bootstrap.servers": os.environ["PEER_BOOTSTRAP"], "group.id": os.environ["PEER_GROUP"]}


class Tick(pw.Schema):
    """A message of the price topic."""

    symbol: str
    price: float
    timestamp: str


@pw.udf(deterministic=True)
def milliseconds(text: str) -> int:
    """The time of a tick in ms since the epoch."""
    elapsed = datetime.datetime.fromisoformat(text) - datetime.datetime.fromtimestamp(0, datetime.UTC)
    return elapsed // datetime.timedelta(milliseconds=1)


@pw.udf(deterministic=True)
def message(member: str, symbol: str, moment: int, price: float, sums: tuple) -> str:
    """One of the two messages of a tick, from number, sum and sum of squares of differences to its price per window."""
    text = datetime.datetime.fromtimestamp(moment / 1_000, datetime.UTC).isoformat(timespec="milliseconds")
    entries = []
    for position, name in enumerate(WINDOWS):
        count, total, squares = sums[3 * position : 3 * position + 3]
        spread = max(squares - total * total / count, 0.0)
        deviation = math.sqrt(spread / (count - 1)) if count > 1 else None
        if member == "stats":
            entry = {"avg_price": price + total / count, "std_price": deviation, "count": count}
        else:
            entry = {"zscore_price": -total / count / deviation if deviation else None}
        entries.append({"window": name, **entry})
    return json.dumps({"timestamp": text.replace("+00:00", "Z"), "symbol": symbol, member: entries})


def main() -> None:
    arrived = pw.io.kafka.read(
        _SETTINGS | {"auto.offset.reset": "earliest"},
        topic="btc-price",
        format="json",
        schema=Tick,
        autocommit_duration_ms=500,
    )
    timed = arrived.select(pw.this.symbol, pw.this.price, moment=milliseconds(pw.this.timestamp))
    ticks = timed.groupby(pw.this.symbol, pw.this.moment).reduce(
        pw.this.symbol, pw.this.moment, price=pw.reducers.earliest(pw.this.price)
    )
    others = ticks.copy()
    longest = max(WINDOWS.values()) * 1_000
    pairs = ticks.interval_join(
        others,
        ticks.moment,
        others.moment,
        pw.temporal.interval(1 - longest, 0),
        ticks.symbol == others.symbol,
        behavior=pw.temporal.common_behavior(delay=LATENESS_MS, cutoff=longest + LATENESS_MS),
    ).select(
        ticks.symbol,
        ticks.moment,
        ticks.price,
        age=ticks.moment - others.moment,
        rise=others.price - ticks.price,
    )
    sums = {}
    for name, seconds in WINDOWS.items():
        inside = pairs.age < seconds * 1_000
        difference = pw.if_else(inside, pairs.rise, 0.0)
        sums[f"count_{name}"] = pw.reducers.sum(pw.if_else(inside, 1, 0))
        sums[f"total_{name}"] = pw.reducers.sum(difference)
        sums[f"squares_{name}"] = pw.reducers.sum(difference * difference)
    windows = pairs.groupby(pairs.symbol, pairs.moment, pairs.price).reduce(
        pairs.symbol, pairs.moment, pairs.price, **sums
    )
    together = pw.make_tuple(*(windows[name] for name in sums))
    for topic, member in (("btc-price-moving", "stats"), ("btc-price-zscore", "z_scores")):
        results = windows.select(
            windows.symbol, value=message(member, windows.symbol, windows.moment, windows.price, together)
        )
        pw.io.kafka.write(results, _SETTINGS, topic, format="plaintext", key=results.symbol, value=results.value)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
