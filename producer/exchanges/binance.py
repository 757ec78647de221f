"""All symbols at an exchange that may stop to know one of them: the others go on, and it is taken up again.

An exchange that does not know one symbol refuses the request for all, without saying which one it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from producer.exchanges.binance_answers import Hopeless, Prices, Refusal, read_answer
from producer.exchanges.binance_client import PriceClient

_LOOK_AGAIN_SECONDS = 5.0  # how often one of the symbols that are not known is asked for

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What came of asking, and the moment of receipt in nanoseconds since the epoch."""

    read: Prices | Refusal | Hopeless
    wall_ns: int


class Market:
    """Asks one exchange for the prices of the same symbols, again and again."""

    def __init__(
        self, base_url: str, symbols: Sequence[str], answer_seconds: float, wait: Callable[[], object]
    ) -> None:
        """`wait` is called between requests that follow one another at once."""
        self._base_url = base_url
        self._symbols = tuple(symbols)
        self._answer_seconds = answer_seconds
        self._wait = wait
        self._known = False
        """Whether all have been asked for with success: before, one that is refused is a mistake in the settings."""
        self._refused: dict[str, str] = {}
        self._look_again_at = 0.0
        self._client = PriceClient(base_url, self._symbols, answer_seconds)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def poll(self) -> Outcome:
        """Ask once, or as often as it takes to find out which symbols are not known any more.

        Those are among the faults of the prices. Never raises for what the network or the other side does.
        """
        outcome = _ask(self._client, [symbol for symbol in self._symbols if symbol not in self._refused])
        if isinstance(outcome.read, Hopeless) and self._known:
            return Outcome(self._find_refused(outcome.read), outcome.wall_ns)
        if isinstance(outcome.read, Prices):
            self._known = True
            if self._refused:
                self._look_again()
                return outcome._replace(read=Prices(outcome.read.prices, {**outcome.read.faults, **self._refused}))
        return outcome

    def _find_refused(self, hopeless: Hopeless) -> Refusal:
        """Ask for each symbol alone; from then on only those that are known are asked for together."""
        refused: dict[str, str] = {}
        for symbol in self._symbols:
            self._wait()
            read = self._ask_alone(symbol)
            if isinstance(read, Refusal):
                return read
            if isinstance(read, Hopeless):
                refused[symbol] = read.reason
        # When none is known, all are asked for together again, after ever longer pauses.
        self._ask_without(refused if len(refused) < len(self._symbols) else {})
        return Refusal("400", hopeless.reason)

    def _look_again(self) -> None:
        """Now and then ask for one of the symbols that are not known."""
        if time.monotonic() < self._look_again_at:
            return
        self._look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS
        symbol, reason = next(iter(self._refused.items()))
        others = {name: text for name, text in self._refused.items() if name != symbol}
        if isinstance(self._ask_alone(symbol), Prices):
            _log.info("%s is known again", symbol)
            self._ask_without(others)
        else:
            self._refused = {**others, symbol: reason}  # next time it is another one's turn

    def _ask_alone(self, symbol: str) -> Prices | Refusal | Hopeless:
        client = PriceClient(self._base_url, (symbol,), self._answer_seconds)
        try:
            return _ask(client, (symbol,)).read
        finally:
            client.close()

    def _ask_without(self, refused: dict[str, str]) -> None:
        self._refused = refused
        self._look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS
        self._client.close()
        known = [symbol for symbol in self._symbols if symbol not in refused]
        self._client = PriceClient(self._base_url, known, self._answer_seconds)


def _ask(client: PriceClient, symbols: Sequence[str]) -> Outcome:
    received = client.ask()
    if isinstance(received, Refusal):
        return Outcome(received, time.time_ns())
    return Outcome(read_answer(received.answer, symbols, received.wall_ns / 1e9), received.wall_ns)
