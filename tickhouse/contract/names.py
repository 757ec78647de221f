"""What goes over the wire: names, windows, units, and how prices and times are written."""

from __future__ import annotations

PRICE_SCALE = 10**8
"""Prices are handled as integers: this many units make 1."""

WINDOWS: dict[str, int] = {
    "30s": 30_000,
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
}
"""Label and length in milliseconds of each sliding window, in the order in which results list them."""

PASSAGE_HORIZON_MS = 20_000
"""How far ahead the next higher and lower price are looked for, in milliseconds."""

SYMBOL_PATTERN = r"[A-Z0-9._\-\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]{1,32}"
"""A symbol as a regular expression. Beside ASCII it may have kana, Han and Hangul, as exchanges list such pairs, but no
letter that could pass for a Latin one. Code points are listed, so that no version's Unicode tables matter."""

TICKS_TOPIC = "btc-price"
MOVING_TOPIC = "btc-price-moving"
ZSCORE_TOPIC = "btc-price-zscore"
HIGHER_TOPIC = "btc-price-higher"
LOWER_TOPIC = "btc-price-lower"

STATS_TYPE = "array<struct<window:string,avg_price:double,std_price:double,count:bigint>>"
Z_SCORES_TYPE = "array<struct<window:string,zscore_price:double>>"


def price_text(price: int) -> str:
    """The exact decimal with eight places of a price in 1e-8 units."""
    whole, fraction = divmod(price, PRICE_SCALE)
    return f"{whole}.{fraction:08d}"
