"""What a page shows: the symbol, window and stretch that were picked, a zoom into it, and the address that says so.

Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode

from tickhouse.contract.names import SYMBOL_PATTERN, WINDOWS
from tickhouse.contract.validation import END_MS

SPANS: dict[str, int] = {"5min": 300_000, "15min": 900_000, "1h": 3_600_000}
"""Name in an address and length in milliseconds of each stretch of time that can be shown."""
SPAN_LABELS = {"5min": "5 min", "15min": "15 min", "1h": "1 h"}
"""The same for people."""
DEFAULT_WINDOW = "1m"
DEFAULT_SPAN = "15min"

Theme = Literal["light", "dark"]

_SYMBOL = re.compile(SYMBOL_PATTERN)


@dataclass(frozen=True)
class View:
    """One choice of each picker."""

    symbol: str
    window: str
    span: str
    zoom: tuple[int, int] | None = None
    """First and last millisecond of what is zoomed into; None to follow what is newest."""

    @property
    def span_ms(self) -> int:
        """The length of the stretch that is shown, in milliseconds."""
        return SPANS[self.span]

    @property
    def search(self) -> str:
        """The query part of the address that opens this view, with its question mark."""
        return "?" + urlencode({"symbol": self.symbol, "window": self.window, "span": self.span})


def view_of(symbol: Any, window: Any, span: Any, symbols: Sequence[str], zoom: Any = None) -> View:
    """The view that a page asks for; what is no valid choice is replaced by the usual one.

    `symbols`: those that are known, at least one. Another is kept if it could be one, so that the page can say that
    there is nothing of it.
    """
    return View(
        symbol if isinstance(symbol, str) and _SYMBOL.fullmatch(symbol) else symbols[0],
        window if isinstance(window, str) and window in WINDOWS else DEFAULT_WINDOW,
        span if isinstance(span, str) and span in SPANS else DEFAULT_SPAN,
        _zoom(zoom),
    )


def _zoom(told: Any) -> tuple[int, int] | None:
    match told:
        case [int(first), int(last)] if 0 <= first < last < END_MS:
            return first, last
    return None


def view_of_search(search: Any, symbols: Sequence[str]) -> View:
    """The view that the query part of an address names."""
    told = parse_qs(search.removeprefix("?")) if isinstance(search, str) else {}
    first = {name: values[0] for name, values in told.items()}
    return view_of(first.get("symbol"), first.get("window"), first.get("span"), symbols)
