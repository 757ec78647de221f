"""What an exchange's answer means, and how long to leave it alone after a refusal."""

from __future__ import annotations

import datetime
import email.utils
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from producer.ticks import price_literal

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
# For how long, by status, when the exchange does not say: limits are counted by the minute, bans begin with two.
_UNSTATED_PAUSES = {429: 60.0, 418: 120.0}
LONGEST_BAN_SECONDS = 3 * 86_400.0
"""The longest ban that the exchange hands out. Whatever asks for more is asked again then: it may be a mistake."""
_BANNED_UNTIL = re.compile(r"banned until ([0-9]+)")
_LAST_SECOND = 10**11  # larger numbers are a time in milliseconds
_BAD_REQUESTS = range(-1199, -1099)  # the exchange's own codes; any other 400 is some gateway's
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
    """Decide what an answer to a request for `symbols` means; `wall` is the time in seconds since the epoch.

    The type of content that it claims to have is not asked about: the body shows what it is.
    """
    status = answer.status
    if status == 200:
        return _read_prices(answer.body, symbols)
    code, message = _message(answer.body)
    if status == 400 and code in _BAD_REQUESTS:
        return Hopeless(message)
    kind = "redirect" if 300 <= status < 400 else str(status)
    pause = _stated_pause(answer.headers.get("retry-after"), message, wall)
    if pause is None:
        return Refusal(kind, message, _UNSTATED_PAUSES.get(status))
    if pause > LONGEST_BAN_SECONDS:
        return Refusal(kind, f"{message} (that is {pause / 86_400:.0f} days, which no ban is)", LONGEST_BAN_SECONDS)
    return Refusal(kind, message, pause)


def pause_after(refusal: Refusal, consecutive: int, chance: float) -> float:
    """Seconds to leave the exchange alone after the `consecutive`-th refusal in a row (from 1).

    What the exchange asked for is obeyed, rounded up a little so that clocks that differ slightly do no harm.
    In any case the pause doubles up to a limit; `chance`, in [0, 1), spreads it so that many do not ask in step.
    """
    doubled = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(consecutive - 1, 20))
    backoff = doubled * (0.5 + 0.5 * chance)
    if refusal.pause is None:
        return backoff
    return max(backoff, refusal.pause + 0.1 + min(backoff, 1.0))


def _read_prices(body: bytes, symbols: Sequence[str]) -> Prices | Refusal:
    try:
        document = _read_json(body)
    except ValueError as error:
        return Refusal("garbage", f"the answer is not JSON ({plain_text(str(error))}): {_excerpt(body)}")
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
            faults[symbol] = f"not one price: {plain_text(repr(texts))}"
        else:
            faults[symbol] = "missing from the answer"
    if not prices and not any(found.values()):
        return Refusal("garbage", f"the answer holds none of the symbols asked for: {_excerpt(body)}")
    if not prices:
        return Refusal("price", f"no usable price: {_excerpt(body)}")
    return Prices(prices, faults)


def _read_json(body: bytes) -> Any:
    """JSON as it is exchanged: UTF-8 without a mark, no name twice in an object. Raises ValueError."""
    try:
        return json.loads(body.decode(), object_pairs_hook=_only_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return document


def _message(body: bytes) -> tuple[int | None, str]:
    """The exchange's own code for what is wrong, None for what is not the exchange's, and a text for people."""
    try:
        document = _read_json(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("msg"), str):
        code = document.get("code")
        code = code if isinstance(code, int) and abs(code) < 10**9 else None
        return code, f"{plain_text(document['msg'])} (code {code})"
    return None, _excerpt(body)


def plain_text(text: str, length: int = 200) -> str:
    """At most `length` characters of a text from outside, on one line and without control characters."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:length])
    return " ".join(shown.split())


def _excerpt(body: bytes) -> str:
    return plain_text(body[:_EXCERPT].decode("utf-8", "replace")) or "an empty body"


def _stated_pause(retry_after: str | None, message: str, wall: float) -> float | None:
    """For how many seconds the exchange wants to be left alone, None when it does not say or the time is past."""
    pauses = [_retry_after(retry_after, wall)]
    banned_until = _BANNED_UNTIL.search(message)
    if banned_until:
        until = float(banned_until.group(1))
        pauses.append((until if until < _LAST_SECOND else until / 1_000) - wall)
    return max((pause for pause in pauses if pause is not None and pause >= 0), default=None)


def _retry_after(text: str | None, wall: float) -> float | None:
    if text is None:
        return None
    if re.fullmatch(r"[0-9]+", text.strip()):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp() - wall
