"""What a tick looks like on the way out: its price literal, its time, its message."""

from __future__ import annotations

import datetime
import re

NANOSECONDS_PER_MS = 1_000_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# Plain decimals only: an exchange that starts to write 6.4e4 has changed, and that should be seen.
_PRICE = re.compile(r"(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,8})?")


def price_literal(text: object) -> str | None:
    """The JSON number that an exchange's price text reads as, digit for digit, or None for anything else.

    A price is a string holding a positive plain decimal below 1e10 with at most eight decimals.
    """
    if not isinstance(text, str) or not _PRICE.fullmatch(text) or not text.strip("0."):
        return None
    return text


def floor_to_step(wall_ns: int, step_ns: int) -> int:
    """The last multiple of the step that is not after `wall_ns` (nanoseconds since the epoch)."""
    return wall_ns - wall_ns % step_ns


def timestamp_text(wall_ns: int) -> str:
    """`2025-05-08T04:12:38.300000+00:00` for nanoseconds since the epoch; what is finer than 1 µs is cut off."""
    return (_EPOCH + datetime.timedelta(microseconds=wall_ns // 1_000)).isoformat(timespec="microseconds")


def tick_message(symbol: str, price: str, wall_ns: int) -> bytes:
    """The message of one tick: `symbol` and `price` as they came, the time in nanoseconds since the epoch."""
    return f'{{"symbol":"{symbol}","price":{price},"timestamp":"{timestamp_text(wall_ns)}"}}'.encode()


class Identities:
    """Remembers each symbol's last timestamp, so that no identity is sent twice and no symbol goes back in time."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def admit(self, symbol: str, wall_ns: int) -> bool:
        """Whether a tick of this symbol at this time is newer than all admitted before; if so it is remembered."""
        if wall_ns <= self._last.get(symbol, -1):
            return False
        self._last[symbol] = wall_ns
        return True
