"""Polling an exchange: a loop that ends when it is told to stop."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from pathlib import Path

from producer.exchanges.binance import Market, Outcome
from producer.exchanges.binance_answers import LONGEST_BAN_SECONDS, Hopeless, Prices, pause_after
from producer.heartbeat import Progress, utc_text, write_json
from producer.publish import Publisher
from producer.schedule import next_poll
from producer.ticks import NANOSECONDS_PER_MS, Identities, floor_to_step, tick_message

_SLICE_SECONDS = 1.0  # how often a long wait looks at how the broker does
_LONG_PAUSE_SECONDS = 2.0  # a pause from here on outlives a restart: it is written down

_log = logging.getLogger(__name__)


class HopelessRequestError(Exception):
    """The exchange says that the request itself is wrong; the text says what to change."""


class PollingSource:
    """Polls one exchange for the prices of all symbols, once a step."""

    def __init__(
        self,
        base_url: str,
        symbols: tuple[str, ...],
        step_ms: int,
        answer_seconds: float,
        pause_file: Path,
        publisher: Publisher,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        """`pause_file` is where a long pause that the exchange asked for is kept, for a restart to obey."""
        self._base_url = base_url
        self._symbols = symbols
        self._step_ns = step_ms * NANOSECONDS_PER_MS
        self._pause_file = pause_file
        self._publisher = publisher
        self._progress = progress
        self._stop = stop
        self._market = Market(base_url, symbols, answer_seconds, lambda: self._pause(step_ms / 1_000))
        self._identities = Identities()
        self._refusals = 0
        self._faults: dict[str, str] = {}

    def run(self) -> bool:
        """Poll until told to stop; False then, as it never ends by itself.

        Raises HopelessRequestError, DeliveryError, Stopped.
        """
        try:
            self._obey_earlier_pause()
            due: int | None = None
            while not self._stop.is_set():
                wall = time.time_ns()
                poll = next_poll(due, self._step_ns, wall, time.monotonic_ns())
                self._progress.missed += poll.missed
                due = poll.due
                if not self._wait_until(due / 1e9):
                    break
                if not self._publisher.has_room():
                    # Not asked: a price that cannot be kept would be lost. The step counts as missed.
                    self._progress.missed += 1
                    report_broker(self._publisher, self._progress)
                    continue
                pause = self._take(self._market.poll())
                if pause is not None:
                    self._pause(pause)
                    due = None
            return False
        finally:
            self._market.close()

    def _take(self, polled: Outcome) -> float | None:
        """Publish what came, or return for how many seconds not to ask again."""
        outcome = polled.read
        if isinstance(outcome, Prices):
            self._publish(outcome, polled.wall_ns)
            return None
        if isinstance(outcome, Hopeless):
            raise HopelessRequestError(
                f"{self._base_url} refuses the request for {', '.join(self._symbols)}: {outcome.reason}; "
                "check TICKHOUSE_SYMBOLS"
            )
        self._refusals += 1
        self._progress.failure(outcome.kind)
        pause = pause_after(outcome, self._refusals, random.random())  # noqa: S311 - spreads load, guards nothing
        until = utc_text(time.time() + pause)
        what = "banned" if outcome.kind == "418" else f"no prices ({outcome.kind}), asking again"
        note = f"{what} {'until' if outcome.kind == '418' else 'at'} {until}: {outcome.reason}"
        self._progress.change("waiting", note)
        if self._refusals > 1:
            _log.warning("refusal %d in a row: %s", self._refusals, note)
        if outcome.pause is not None and pause >= _LONG_PAUSE_SECONDS:
            self._write_pause(time.time() + pause)
        return pause

    def _publish(self, prices: Prices, wall_ns: int) -> None:
        self._refusals = 0
        for symbol, fault in prices.faults.items():
            self._progress.failure("price")
            if symbol not in self._faults:
                _log.warning("no usable price of %s: %s", symbol, fault)
        for symbol in self._faults.keys() - prices.faults.keys():
            _log.info("prices of %s again", symbol)
        self._faults = prices.faults
        timestamp_ns = floor_to_step(wall_ns, self._step_ns)
        skipped: list[str] = []
        for symbol, price in prices.prices.items():
            if not self._identities.admit(symbol, timestamp_ns):
                self._progress.skipped += 1
                skipped.append(symbol)
                continue
            key = symbol.encode()
            self._publisher.send(
                key,
                tick_message(symbol, price, timestamp_ns),
                self._publisher.partition_of_key(key),
                # Read once for both: no tick is ahead of its record, whatever the clock does in between.
                record_ms=wall_ns // NANOSECONDS_PER_MS,
            )
            self._progress.last_timestamp = utc_text(timestamp_ns / 1e9)
        if skipped:
            self._publisher.check()
            self._progress.change(
                "waiting",
                f"the clock was set back: no ticks of {', '.join(skipped)} until it has passed that of the last one "
                f"({self._progress.last_timestamp})",
            )
        else:
            faults = (
                f"no price of {', '.join(self._faults)}: {next(iter(self._faults.values()))}" if self._faults else None
            )
            report_broker(self._publisher, self._progress, faults)

    def _wait_until(self, due: float) -> bool:
        """Wait for a moment on the monotonic clock, in seconds; False when told to stop."""
        while (left := due - time.monotonic()) > 0:
            if self._stop.wait(min(left, _SLICE_SECONDS)):
                return False
            if left > _SLICE_SECONDS:
                self._publisher.check()
        return not self._stop.is_set()

    def _pause(self, seconds: float) -> None:
        self._wait_until(time.monotonic() + seconds)

    def _obey_earlier_pause(self) -> None:
        try:
            kept = json.loads(self._pause_file.read_text(encoding="utf-8"))
            left = float(kept["until"]) - time.time() if kept["url"] == self._base_url else 0.0
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is not readable and is ignored: %s", self._pause_file, error)
            return
        if left > 0:
            # A file that was damaged, or a clock that was wrong when it was written, does not mean for ever.
            left = min(left, LONGEST_BAN_SECONDS)
            self._progress.change("waiting", f"banned until {utc_text(time.time() + left)}, as an earlier run was told")
            self._pause(left)

    def _write_pause(self, until: float) -> None:
        try:
            write_json(self._pause_file, {"url": self._base_url, "until": until})
        except OSError as error:
            _log.error("the pause cannot be written down, a restart would not know of it: %s", error)


def report_broker(publisher: Publisher, progress: Progress, otherwise: str | None = None) -> None:
    """Say how the broker does, and what else there is to say when it does well."""
    note = publisher.check()
    progress.change("waiting" if note else "running", note or otherwise)
