"""One reader for all pages that are open, however many."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from deltalake.exceptions import DeltaError
from pymongo.errors import PyMongoError

from orchestration.board.market import Market
from orchestration.board.rows import IN_ORDER, ORDERS, TABLES, RecentRows, Rows, no_rows
from orchestration.board.scores import Scores
from orchestration.lakehouse.tables import Lakehouse
from orchestration.local.processes import ProcessError
from orchestration.mongo_address import without_password
from orchestration.monitoring import alert_log
from orchestration.monitoring.alert_log import Alert
from orchestration.monitoring.status import Status, collect
from orchestration.serving.mongo import fault
from orchestration.settings import OrchestrationSettings, SettingsError, read_endpoints
from tickhouse.contract.names import WINDOWS

LOOK_SECONDS = 1.0
STATUS_SECONDS = 2.0
WATCHED_SECONDS = 10.0
"""What nobody has asked for in this time is no longer read."""
ALERTS_SHOWN = 8
_FIRST_LOOK_SECONDS = 1.5
_STOP_SECONDS = 5.0
_MARGIN_MS = 60_000
"""Read beyond what is shown: the newest rows of a symbol may be older than those of its table."""
_PARTS = {"prices": "prices", "moving_stats": "statistics", "higher": "higher", "lower": "lower"}
"""Table to the part of a market."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sight:
    """What was found by the last look."""

    status: Status | None = None
    """None before the first look."""
    symbols: tuple[str, ...] = ()
    """Known symbols: those that were asked for, then those that MongoDB has besides."""
    alerts: tuple[Alert, ...] = ()
    """Newest first."""
    problems: tuple[str, ...] = ()
    """What could not be read, in sentences."""
    markets: dict[tuple[str, int], Market] = field(default_factory=dict)
    """By symbol and the stretch in milliseconds."""
    lateness_seconds: float = 10.0
    """How long a result waits for late ticks."""


class Watcher:
    """Reads in a thread of its own for as long as someone asks, and rests otherwise. To be used as a context."""

    def __init__(self, read_settings: Callable[[], OrchestrationSettings]) -> None:
        """`read_settings` is asked again and again: a stack that is started later may have other addresses.

        What it raises at first, SettingsError, is passed on.
        """
        self._read_settings = read_settings
        self._settings = read_settings()
        self._symbols = _known_symbols(self._settings, ())
        self._sight = Sight(symbols=self._symbols)
        self._asked: dict[tuple[str, int], float] = {}
        self._changed = threading.Condition()
        self._looks = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._status: Status | None = None
        self._status_at = -STATUS_SECONDS
        self._status_problems: list[str] = []
        self._alerts: tuple[Alert, ...] = ()
        self._tables = _tables(self._settings)
        self._scores: Scores | None = None
        self._loaded: tuple[tuple[str, str, int], ...] | None = None
        self._read_scores: dict[tuple[str, int], tuple[object, dict[str, Rows]]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Known symbols; at least one."""
        return self._sight.symbols

    def look(self, symbol: str, span_ms: int) -> Sight:
        """What was found last. Asking keeps a stretch of that length of the symbol, if it is known, being read.

        Whoever asks for something new, or first after a pause, waits for a look, but not for long.
        """
        with self._changed:
            # Nothing is read of an unknown symbol; how everything else is, is.
            key = (symbol if symbol in self._sight.symbols else self._sight.symbols[0], span_ms)
            news = not self._watched() or key not in self._sight.markets
            self._asked[key] = time.monotonic()
            if news:
                before = self._looks
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._looks > before and key in self._sight.markets, _FIRST_LOOK_SECONDS)
            return self._sight

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not self._watched():
                    self._changed.wait()
                if self._stopping:
                    return
                keys = self._watched()
            try:
                sight = self._look(keys)
            except Exception as error:
                # A page that stands still without a word would be worse than one that says what is wrong with it.
                _log.exception("the look has failed")
                sight = replace(self._sight, problems=(f"The board cannot read: {error}",))
            with self._changed:
                self._sight = sight
                self._looks += 1
                self._changed.notify_all()
                if not self._stopping and set(self._watched()) <= set(keys):
                    self._changed.wait(LOOK_SECONDS)

    def _watched(self) -> list[tuple[str, int]]:
        now = time.monotonic()
        self._asked = {key: at for key, at in self._asked.items() if now - at < WATCHED_SECONDS}
        return list(self._asked)

    def _look(self, keys: Sequence[tuple[str, int]]) -> Sight:
        if time.monotonic() - self._status_at >= STATUS_SECONDS:
            self._look_at_status()
            self._status_at = time.monotonic()
        problems = list(self._status_problems)
        versions = {name: self._refresh(name, problems) for name in self._tables}
        markets: dict[tuple[str, int], Market] = {}
        for symbol in {symbol for symbol, _ in keys}:
            spans = sorted({span for other, span in keys if other == symbol}, reverse=True)
            markets |= self._markets(symbol, spans, versions, problems)
        for table in self._tables.values():
            table.forget_all_but({symbol for symbol, _ in keys})
        self._read_scores = {key: kept for key, kept in self._read_scores.items() if key in keys}
        return Sight(
            self._status,
            self._symbols,
            self._alerts,
            tuple(dict.fromkeys(problems)),
            markets,
            self._settings.lateness_seconds,
        )

    def _look_at_status(self) -> None:
        problems: list[str] = []
        try:
            self._follow(self._read_settings())
            self._status = collect(self._settings)
            problems += self._status.problems
        except (SettingsError, ProcessError) as error:
            problems.append(f"{error}")
        self._alerts = tuple(alert_log.latest(self._settings.home, ALERTS_SHOWN))
        try:
            if self._scores is None:
                self._scores = Scores(self._settings.mongo_uri.get_secret_value())
            loaded = self._scores.loaded()
            if loaded != self._loaded:
                self._symbols = _known_symbols(self._settings, self._scores.symbols())
                self._loaded = loaded
        except PyMongoError as error:
            problems.append(self._mongo_problem(error))
        self._status_problems = problems

    def _follow(self, settings: OrchestrationSettings) -> None:
        if settings.lakehouse != self._settings.lakehouse:
            self._tables = _tables(settings)
        if settings.mongo_uri != self._settings.mongo_uri and self._scores is not None:
            self._scores.close()
            self._scores = None
        if settings != self._settings:
            self._symbols = _known_symbols(settings, self._symbols)
        self._settings = settings

    def _refresh(self, name: str, problems: list[str]) -> tuple[str, int] | None:
        try:
            return self._tables[name].refresh()
        except (DeltaError, OSError) as error:
            problems.append(f"the table {name} in {self._settings.lakehouse} cannot be read: {error}")
            return None

    def _markets(
        self, symbol: str, spans: Sequence[int], versions: Mapping[str, object], problems: list[str]
    ) -> dict[tuple[str, int], Market]:
        """What there is of a symbol for each of `spans` (milliseconds, longest first): the last, if nothing is new."""
        token = f"{versions} {self._loaded}"
        known = {(symbol, span): self._sight.markets.get((symbol, span)) for span in spans}
        kept = {key: market for key, market in known.items() if market is not None and market.token == token}
        if len(kept) == len(spans):
            return kept
        rows = {name: self._read_table(name, symbol, spans[0] + _MARGIN_MS, problems) for name in self._tables}
        markets = {}
        for span in spans:
            cut = {
                name: found.since(int(found.times[-1]) - span - _MARGIN_MS)
                for name, found in rows.items()
                if len(found.times)
            }
            markets[symbol, span] = Market(
                token,
                **{_PARTS[name]: found for name, found in cut.items()},
                scores=self._read_collections(symbol, span, problems),
            )
        return markets

    def _read_table(self, name: str, symbol: str, span: int, problems: list[str]) -> Rows:
        table = self._tables[name]
        try:
            return table.read(symbol, (table.end or 0) - span)
        except Exception as error:
            # The engine raises plain exceptions: for a file that was vacuumed away under it, for example. The next
            # version is read anew.
            problems.append(f"the table {name} in {self._settings.lakehouse} cannot be read: {error}")
            return no_rows(len(TABLES[name]))

    def _read_collections(self, symbol: str, span: int, problems: list[str]) -> dict[str, Rows]:
        """z-scores of a symbol: those read last when nothing was loaded since, or when MongoDB is away."""
        key = (symbol, span)
        loaded, scores = self._read_scores.get(key, (None, {window: no_rows(1) for window in WINDOWS}))
        if self._scores is not None and loaded != self._loaded:
            try:
                scores = self._scores.read(symbol, span)
                self._read_scores[key] = (self._loaded, scores)
            except PyMongoError as error:
                problems.append(self._mongo_problem(error))
        return scores

    def _mongo_problem(self, error: PyMongoError) -> str:
        return f"MongoDB at {without_password(self._settings.mongo_uri.get_secret_value())} {fault(error)}"


def _tables(settings: OrchestrationSettings) -> dict[str, RecentRows]:
    lakehouse = Lakehouse(settings.lakehouse)
    return {
        name: RecentRows(lakehouse.table_uri(name), expressions, ORDERS.get(name, IN_ORDER))
        for name, expressions in TABLES.items()
    }


def _known_symbols(settings: OrchestrationSettings, others: Sequence[str]) -> tuple[str, ...]:
    """Those that the running stack asks the exchange for, then any others; at least one."""
    endpoints = read_endpoints(settings.home)
    asked = endpoints.symbols if endpoints else []
    return tuple(dict.fromkeys([*(asked or settings.symbols), *others]))
