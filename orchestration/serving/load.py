"""From the Delta table `zscores` to one MongoDB collection for each window.

Loading is idempotent. A document's `_id` is its tick's identity, so writing it again changes nothing; the loaded
version is recorded, in a database of its own, after the data is on disk. Whatever is cut off, repeated or done twice at
the same time therefore leaves one document for each tick, and none is missing up to the recorded version.

Where the versions behind the record cannot be followed, as their log or files are gone, the documents are compared
with all of the table: those without a row are removed, and all rows written. A record has the fingerprint of its
version, too: a table that was put back to an earlier state and has gone on since has another version of that number,
and is loaded from its beginning.

A range of versions that only adds rows is loaded by what it adds, in any order. Where rows were removed or replaced, as
a backfill does, the order would matter: of the days concerned, all rows that are there after the range are written
instead, and then the documents removed whose rows are not among them, so that no document that stays is ever missing.
A load goes on until it has applied the newest version, so that a row which comes back while another load removes it is
written after that, too.

What retention has cut off (`orchestration.serving.retention`) is not loaded, whether it comes by changes, by a day that
was replaced, or by all of the table. The cuts stand in the record, which a load replaces only where that is the one it
found, or further: where the cuts have moved meanwhile it removes what is before them and tries again, and where the
record was forgotten, so that the collection is loaded anew, it fails.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bson.datetime_ms import DatetimeMS

from orchestration.lakehouse.tables import ChangesUnavailable, Lakehouse, TableVersion, VersionUnavailable
from orchestration.serving.cutoffs import Kept, kept_rows
from orchestration.serving.mongo import BULK, TABLE, Document, Loaded, LoadError, MongoStore, collection_name
from tickhouse.contract.arrays import Integers, timestamp_texts
from tickhouse.contract.names import WINDOWS

COLUMNS = ["symbol", "timestamp", "z_scores"]
"""Of the table: what the documents are made of."""
VERSIONS_AT_ONCE = 100
"""After so many versions what has been loaded is recorded, so that a long load which is cut off goes on from there."""


_log = logging.getLogger(__name__)


def first_version(loaded: Loaded | None, table_id: str, version: int) -> int:
    """The first version that is not loaded; `version + 1` when all of the table is.

    A table made anew, or one that is behind what was loaded (restored from a copy), is loaded from its beginning.
    `loaded` must have been read before `version`, or a table that went on in between would look restored.
    """
    if loaded is None or loaded.table_id != table_id or loaded.delta_version > version:
        return 0
    return loaded.delta_version + 1


@dataclass(frozen=True)
class WindowLoad:
    """What a load did for one window. `rows`: read and written, by this load; the rest is the state after it."""

    window: str
    rows: int
    loaded: Loaded
    last_event_time: datetime.datetime | None


def documents_of(rows: pa.RecordBatch, windows: Sequence[str]) -> dict[str, list[Document]]:
    """The documents of each of `windows` from rows of the table, in the order of the rows.

    Raises LoadError when a row does not list exactly the windows of the contract, in their order.
    """
    if rows.num_rows == 0:
        return {window: [] for window in windows}
    labels = list(WINDOWS)
    scores = rows["z_scores"]
    if scores.null_count or set(pc.unique(pc.list_value_length(scores)).to_pylist()) != {len(labels)}:
        raise LoadError(f"a row of {TABLE} does not list {len(labels)} windows")
    entries = pc.list_flatten(scores)
    found = np.array(pc.struct_field(entries, "window").to_pylist(), dtype=object).reshape(-1, len(labels))
    if not (found == np.array(labels, dtype=object)).all():
        raise LoadError(f"a row of {TABLE} does not list the windows {', '.join(labels)} in that order")
    values = pc.struct_field(entries, "zscore_price").to_pylist()
    symbols = rows["symbol"].to_pylist()
    milliseconds = _milliseconds(rows)
    dates = [DatetimeMS(value) for value in milliseconds.tolist()]
    identities = _identities(symbols, milliseconds)
    return {
        window: [
            {"_id": identity, "timestamp": date, "symbol": symbol, "window": window, "zscore_price": value}
            for identity, date, symbol, value in zip(
                identities, dates, symbols, values[labels.index(window) :: len(labels)], strict=True
            )
        ]
        for window in windows
    }


def load(lakehouse: Lakehouse, store: MongoStore, windows: Sequence[str] = tuple(WINDOWS)) -> list[WindowLoad]:
    """Load everything new into the collections of `windows`; returns what was done, in their order.

    Memory is bounded by one batch of rows. Raises LoadError when the table is not there or not as it must be, pymongo's
    PyMongoError when MongoDB is away or refuses: what had been recorded by then stays.
    """
    records = store.loaded()
    state = lakehouse.version(TABLE)
    if state is None:
        raise LoadError(f"there is no table {lakehouse.table_uri(TABLE)}: start the zscore stream first")
    store.prepare(windows)
    alike: dict[tuple[int, Kept], list[str]] = {}
    is_undone = cache(partial(_is_undone, lakehouse, newest=state.version))
    for window in windows:
        record = records.get(collection_name(window))
        kept = record.kept if record is not None and record.table_id == state.table_id else ()
        if (
            record is not None
            and record.table_id == state.table_id
            and is_undone(record.delta_version, record.fingerprint)
        ):
            # It speaks of versions that are no more, and would keep the coming record from replacing it.
            store.forget(window)
            del records[collection_name(window)]
        first = first_version(records.get(collection_name(window)), state.table_id, state.version)
        alike.setdefault((first, kept), []).append(window)
    rows = dict.fromkeys(windows, 0)
    newest = state.version
    with ThreadPoolExecutor(max_workers=len(windows), thread_name_prefix="load") as pool:
        for (start, kept), wanted in alike.items():
            first = start
            while first <= newest:
                last = min(newest, first + VERSIONS_AT_ONCE - 1)
                try:
                    read, removed = _apply(lakehouse, store, pool, first, last, wanted, kept)
                    if removed:
                        newest = _newest(lakehouse, state)
                except (ChangesUnavailable, VersionUnavailable) as error:
                    _log.warning("loading all of the table instead of its changes: %s", error)
                    last = newest
                    if _remove_strangers(lakehouse, store, pool, last, wanted):
                        newest = _newest(lakehouse, state)
                    read = _write(store, pool, lakehouse.snapshot(TABLE, last, COLUMNS), wanted, kept)
                content, fingerprint = lakehouse.content(TABLE, last).rows, lakehouse.fingerprint(TABLE, last)
                for window in wanted:
                    # How many of the rows are kept is not known without reading all; the collection knows.
                    documents = store.documents(window) if kept else content
                    now = datetime.datetime.now(datetime.UTC)
                    loaded = Loaded(state.table_id, last, documents, now, kept, fingerprint)
                    records[collection_name(window)] = _record(
                        store, window, loaded, records.get(collection_name(window))
                    )
                    rows[window] += read
                first = last + 1
    last_event = lakehouse.content(TABLE, newest).last_event_time
    return [WindowLoad(window, rows[window], records[collection_name(window)], last_event) for window in windows]


def _record(store: MongoStore, window: str, loaded: Loaded, found: Loaded | None) -> Loaded:
    """Record what is loaded, and leave nothing that retention has cut off meanwhile. Raises LoadError."""
    there: Loaded | None = loaded
    while there is not None:
        loaded = loaded._replace(kept=there.kept)
        store.remove_cut_off(window, loaded.kept)
        if there.delta_version > loaded.delta_version:
            # The data that it speaks of includes ours.
            _log.info("%s: a later version than %d is recorded already", window, loaded.delta_version)
            break
        there = store.record(window, loaded, found)
    return loaded


def _is_undone(lakehouse: Lakehouse, version: int, fingerprint: str | None, newest: int) -> bool:
    """Whether a recorded version is not the table's any more; one that is too old to be known passes for it."""
    if version > newest:
        return True
    found = None if fingerprint is None else lakehouse.fingerprint(TABLE, version)
    return found is not None and found != fingerprint


def _remove_strangers(
    lakehouse: Lakehouse, store: MongoStore, pool: ThreadPoolExecutor, version: int, windows: Sequence[str]
) -> int:
    """Remove the documents without a row in a version of the table; returns how many. Takes 8 bytes for each row."""
    filled = [window for window in windows if store.documents(window)]
    if not filled:
        return 0
    parts: dict[str, list[Integers]] = {}
    for batch in lakehouse.snapshot(TABLE, version, ["symbol", "timestamp"]):
        for symbol, times in _by_symbol(batch):
            parts.setdefault(symbol, []).append(times)
    there = {symbol: np.concatenate(found) for symbol, found in parts.items()}

    def remove(window: str) -> int:
        removed = 0
        for symbol in store.symbols(window):
            for times in store.times(window, symbol):
                strange = times[~np.isin(times, there.get(symbol, np.zeros(0, dtype=np.int64)))]
                removed += len(strange)
                for start in range(0, len(strange), BULK):
                    some = strange[start : start + BULK]
                    store.remove(window, _identities([symbol] * len(some), some))
        return removed

    removed = sum(pool.map(remove, filled))
    if removed:
        _log.warning("removed %d documents that have no row in version %d of the table", removed, version)
    return removed


def _newest(lakehouse: Lakehouse, state: TableVersion) -> int:
    """The newest version of the table whose state that was."""
    now = lakehouse.version(TABLE)
    return now.version if now is not None and now.table_id == state.table_id else state.version


def _apply(
    lakehouse: Lakehouse,
    store: MongoStore,
    pool: ThreadPoolExecutor,
    first: int,
    last: int,
    windows: Sequence[str],
    kept: Kept,
) -> tuple[int, int]:
    """Bring the collections from before the version `first` to `last`; the rows written and the documents removed.

    Raises ChangesUnavailable and VersionUnavailable, after some of it perhaps.
    """
    taken = _Removed(lakehouse.removed(TABLE, first, last, ["symbol", "timestamp", "date"]))
    added = map(taken.of_other_days, lakehouse.added(TABLE, first, last, [*COLUMNS, "date"]))
    read = _write(store, pool, added, windows, kept)
    for day in sorted(taken.days):
        there = map(taken.strike_out, lakehouse.snapshot(TABLE, last, COLUMNS, day))
        read += _write(store, pool, there, windows, kept)
    removed = 0
    for identities in taken.gone():
        removed += len(identities)
        for done in [pool.submit(store.remove, window, identities) for window in windows]:
            done.result()
    return read, removed


class _Removed:
    """The rows that a range of versions has removed, by their identities: 9 bytes for each."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self.days: set[datetime.date] = set()
        """The UTC days that are concerned."""
        parts: dict[str, list[Integers]] = {}
        for batch in batches:
            # A row may have stood under another date than its own.
            self.days |= {
                *pc.unique(batch["date"]).to_pylist(),
                *pc.unique(batch["timestamp"].cast("date32")).to_pylist(),
            }
            for symbol, times in _by_symbol(batch):
                parts.setdefault(symbol, []).append(times)
        self._times = {symbol: np.unique(np.concatenate(found)) for symbol, found in parts.items()}
        self._there = {symbol: np.zeros(len(times), dtype=bool) for symbol, times in self._times.items()}

    def of_other_days(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch that are of days which are not concerned."""
        if not self.days:
            return batch
        concerned = pc.is_in(batch["date"], value_set=pa.array(sorted(self.days), pa.date32()))
        return batch.filter(pc.invert(concerned))

    def strike_out(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Note that the rows of a batch are there after all. Returns the batch."""
        for symbol, times in _by_symbol(batch):
            if symbol in self._times:
                self._there[symbol] |= np.isin(self._times[symbol], times, assume_unique=True)
        return batch

    def gone(self) -> Iterator[list[str]]:
        """The `_id`s of those that are not there any more, some at a time."""
        for symbol, times in self._times.items():
            left = times[~self._there[symbol]]
            for start in range(0, len(left), BULK):
                some = left[start : start + BULK]
                yield _identities([symbol] * len(some), some)


def _by_symbol(batch: pa.RecordBatch) -> Iterator[tuple[str, Integers]]:
    """The timestamps of each symbol of a batch, in milliseconds."""
    symbols, times = np.array(batch["symbol"].to_pylist()), _milliseconds(batch)
    for symbol in np.unique(symbols).tolist():
        yield symbol, times[symbols == symbol]


def _milliseconds(batch: pa.RecordBatch) -> Integers:
    milliseconds: Integers = batch["timestamp"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy()
    return milliseconds


def _identities(symbols: Sequence[str], timestamps: Integers) -> list[str]:
    """The `_id`s of ticks."""
    return [f"{symbol}|{text}" for symbol, text in zip(symbols, timestamp_texts(timestamps), strict=True)]


def _write(
    store: MongoStore, pool: ThreadPoolExecutor, batches: Iterator[pa.RecordBatch], windows: Sequence[str], kept: Kept
) -> int:
    """Write the documents that are kept of all batches, one thread for each collection; returns the number of rows."""
    read = 0
    for every in batches:
        batch = kept_rows(every, kept)
        read += batch.num_rows
        documents = documents_of(batch, windows)
        # All of a batch is written before the next is read: that bounds the memory.
        for done in [pool.submit(store.write, window, documents[window]) for window in windows]:
            done.result()
    return read
