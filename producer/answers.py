"""What an exchange's answer means, and how long to leave it alone after a refusal.

Belongs here: pure decisions on status, headers and body. Does not belong here: sending the request (`exchange`),
waiting (`sources`).
"""

from __future__ import annotations

import datetime
import email.utils
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from producer.ticks import price_literal

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
_RATE_LIMIT_PAUSE_SECONDS = 60.0  # a 429 that does not say for how long: limits are counted by the minute
_BAN_PAUSE_SECONDS = 120.0  # a 418 that does not say for how long: the shortest ban
_LONGEST_BAN_SECONDS = 30 * 86_400.0  # beyond any real ban; keeps a mistaken number from meaning for ever
_BANNED_UNTIL = re.compile(r"until ([0-9]{13})")
_BAD_REQUEST = re.compile(r"\(code -11[0-9]{2}\)\Z")  # the exchange's own codes; any other 400 is some gateway's
_EXCERPT = 200


class Answer(NamedTuple):
    """A complete HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Prices(NamedTuple):
    """A usable answer: price literal by symbol, one at least, and what was wrong with the other symbols."""

    prices: dict[str, str]
    faults: dict[str, str]


class Refusal(NamedTuple):
    """No prices this time. `kind` is what it is counted under; `pause` is what the exchange asked for, in seconds."""

    kind: str
    reason: str
    pause: float | None = None


class Hopeless(NamedTuple):
    """The request itself is wrong: asking again cannot help."""

    reason: str


def read_answer(answer: Answer, symbols: Sequence[str], wall: float) -> Prices | Refusal | Hopeless:
    """Decide what an answer to a request for `symbols` means; `wall` is the time in seconds since the epoch."""
    status = answer.status
    if status == 200:
        return _read_prices(answer.body, symbols)
    message = _message(answer.body)
    if status in (418, 429):
        pauses = [_retry_after(answer.headers.get("retry-after"), wall)]
        banned_until = _BANNED_UNTIL.search(message)
        if banned_until:
            pauses.append(int(banned_until.group(1)) / 1_000 - wall)
        stated = [pause for pause in pauses if pause is not None and pause >= 0]
        default = _BAN_PAUSE_SECONDS if status == 418 else _RATE_LIMIT_PAUSE_SECONDS
        return Refusal(str(status), message, min(max(stated, default=default), _LONGEST_BAN_SECONDS))
    if status == 400 and _BAD_REQUEST.search(message):
        return Hopeless(message)
    return Refusal("redirect" if 300 <= status < 400 else str(status), message)


def pause_after(refusal: Refusal, consecutive: int, chance: float) -> float:
    """Seconds to leave the exchange alone after the `consecutive`-th refusal in a row (from 1).

    What the exchange asked for is obeyed, rounded up a little so that clocks that differ slightly do no harm.
    Otherwise the pause doubles up to a limit; `chance`, in [0, 1), spreads it so that many do not ask in step.
    """
    doubled = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(consecutive - 1, 20))
    backoff = doubled * (0.5 + 0.5 * chance)
    if refusal.pause is None:
        return backoff
    return refusal.pause + 0.1 + min(backoff, 1.0)


def _read_prices(body: bytes, symbols: Sequence[str]) -> Prices | Refusal:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return Refusal("garbage", f"the answer is not JSON: {_excerpt(body)}")
    entries = document if isinstance(document, list) else [document]
    if not all(isinstance(entry, dict) for entry in entries):
        return Refusal("garbage", f"the answer is not a list of prices: {_excerpt(body)}")
    found: dict[str, list[object]] = {symbol: [] for symbol in symbols}
    for entry in entries:
        symbol = entry.get("symbol")
        if isinstance(symbol, str) and symbol in found:
            found[symbol].append(entry.get("price"))
    prices: dict[str, str] = {}
    faults: dict[str, str] = {}
    for symbol, texts in found.items():
        literal = price_literal(texts[0]) if len(texts) == 1 else None
        if literal is not None:
            prices[symbol] = literal
        elif texts:
            faults[symbol] = f"not one price: {repr(texts)[:_EXCERPT]}"
        else:
            faults[symbol] = "missing from the answer"
    if not prices and not any(found.values()):
        return Refusal("garbage", f"the answer holds none of the symbols asked for: {_excerpt(body)}")
    if not prices:
        return Refusal("price", f"no usable price: {_excerpt(body)}")
    return Prices(prices, faults)


def _message(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("msg"), str):
        return f"{str(document['msg'])[:_EXCERPT]} (code {document.get('code')})"
    return _excerpt(body)


def _excerpt(body: bytes) -> str:
    return " ".join(body[:_EXCERPT].decode("utf-8", "replace").split()) or "an empty body"


def _retry_after(text: str | None, wall: float) -> float | None:
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp() - wall
