"""The serving store in MongoDB: documents, the record of what is loaded, and its faults."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pymongo import ASCENDING, IndexModel, MongoClient, ReplaceOne, WriteConcern
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from orchestration.serving.cutoffs import Cutoff, Kept, keeps_no_more
from tickhouse.contract.arrays import Integers
from tickhouse.contract.names import WINDOWS

TABLE = "zscores"
DATABASE = "btc"
RECORDS_DATABASE = "tickhouse"
RECORDS_COLLECTION = "loads"
BULK = 1_000
CUT_OFF_AT_ONCE = 5_000
"""So many documents that retention removes go in one command."""
_TIMES_AT_ONCE = 100_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DUPLICATE_KEY = 11000
_NO_ENTRY = (13, 18)  # the server's codes Unauthorized and AuthenticationFailed
Document = dict[str, Any]
Record = dict[str, Any]


class LoadError(RuntimeError):
    """The table does not hold what it must; the text says what was found."""


def collection_name(window: str) -> str:
    """The collection of a window such as `30s`."""
    return f"btc-price-zscore-{window}"


COLLECTIONS = {window: collection_name(window) for window in WINDOWS}
"""Window to collection, in the order of the windows."""


def short_reason(error: PyMongoError) -> str:
    """What a driver's error says, without the topology it appends."""
    return str(error).split(",", maxsplit=1)[0].split(" (", maxsplit=1)[0]


def fault(error: PyMongoError) -> str:
    """What MongoDB does instead of its work and what to do about it, to be read after its name."""
    reason = short_reason(error)
    if isinstance(error, ConnectionFailure):
        return f"does not answer ({reason}): start the stack with `tickhouse up`, or set TICKHOUSE_MONGO_URI"
    if isinstance(error, ConfigurationError) or (isinstance(error, OperationFailure) and error.code in _NO_ENTRY):
        return f"refuses ({reason}): check user, password and options in TICKHOUSE_MONGO_URI"
    return f"reports an error ({reason}): see its log"


class Loaded(NamedTuple):
    """What a collection holds by its record: every row of the table up to that version, as far as they are kept."""

    table_id: str
    delta_version: int
    documents: int
    loaded_at: datetime.datetime
    kept: Kept = ()
    fingerprint: str | None = None
    """What tells that version from another of the same number; None in records of before there was one."""


class MongoStore:
    """The collections behind `uri`, written journaled. A server that is away raises pymongo's PyMongoError."""

    def __init__(
        self, uri: str, timeout_seconds: float = 5.0, progress: Callable[[str], None] = lambda _said: None
    ) -> None:
        """Connect when first used. Raises ConfigurationError, which does not quote the address, when it is wrong.

        `progress` is told of each step in writing that is done, from several threads.
        """
        self._progress = progress
        self._client = client(uri, round(timeout_seconds * 1_000))
        # Acknowledged means on disk, and on a majority where there are several.
        durable = WriteConcern(w="majority", j=True)
        self._data = self._client.get_database(DATABASE, write_concern=durable)
        self._records = self._client[RECORDS_DATABASE].get_collection(RECORDS_COLLECTION, write_concern=durable)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def loaded(self) -> dict[str, Loaded]:
        """The record of each collection that was ever loaded, by collection name."""
        return {record["_id"]: _loaded(record) for record in self._records.find()}

    def documents(self, window: str) -> int:
        """How many documents a collection has, by its own count (which is quick, and off after a crash at most)."""
        return self._data[collection_name(window)].estimated_document_count()

    def count(self, window: str, kept: Kept, at_most_seconds: float) -> int:
        """How many documents a collection has that are kept, one by one. Raises PyMongoError when that takes longer."""
        collection, limit = self._data[collection_name(window)], round(at_most_seconds * 1_000)
        cut = [{"symbol": symbol, "timestamp": {"$gte": begin}} for symbol, begin in kept]
        conditions: list[Document] = [*cut, {"symbol": {"$nin": [symbol for symbol, _ in kept]}} if kept else {}]
        return sum(collection.count_documents(condition, maxTimeMS=limit) for condition in conditions)

    def scores(self, window: str, identities: Sequence[str]) -> dict[str, float | None]:
        """The z-scores of those of the documents that are there, by `_id`."""
        collection = self._data[collection_name(window)]
        found: dict[str, float | None] = {}
        for start in range(0, len(identities), BULK):
            wanted = {"_id": {"$in": list(identities[start : start + BULK])}}
            found |= {each["_id"]: each["zscore_price"] for each in collection.find(wanted, {"zscore_price": True})}
        return found

    def prepare(self, windows: Sequence[str]) -> None:
        """Make collections and their index where they are missing."""
        for window in windows:
            self._data[collection_name(window)].create_indexes(
                [IndexModel([("symbol", ASCENDING), ("timestamp", ASCENDING)], name="symbol_timestamp")]
            )

    def write(self, window: str, documents: Sequence[Document]) -> None:
        """Write documents, each replacing the one of its `_id`."""
        collection = self._data[collection_name(window)]
        for start in range(0, len(documents), BULK):
            some = documents[start : start + BULK]
            try:
                # Nearly all are new, and adding one costs the server half of what looking for it first does.
                collection.insert_many(some, ordered=False)
            except BulkWriteError as error:
                failures = error.details["writeErrors"]
                others = [failure for failure in failures if failure["code"] != _DUPLICATE_KEY]
                if others or error.details["writeConcernErrors"]:
                    raise
                there = [some[failure["index"]] for failure in failures]
                collection.bulk_write(
                    [ReplaceOne({"_id": each["_id"]}, each, upsert=True) for each in there], ordered=False
                )
            self._progress(f"writing {collection.name}")

    def remove(self, window: str, identities: Sequence[str]) -> None:
        """Remove the documents of these `_id`s, if they are there."""
        self._data[collection_name(window)].delete_many({"_id": {"$in": list(identities)}})
        self._progress(f"removing from {collection_name(window)}")

    def times(self, window: str, symbol: str) -> Iterator[Integers]:
        """The timestamps of a symbol's documents in milliseconds, some at a time."""
        found = self._data[collection_name(window)].find({"symbol": symbol}, {"_id": False, "timestamp": True})
        some: list[int] = []
        for document in found:
            some.append(_epoch_ms(document["timestamp"]))
            if len(some) == _TIMES_AT_ONCE:
                yield np.array(some, dtype=np.int64)
                some = []
        if some:
            yield np.array(some, dtype=np.int64)

    def symbols(self, window: str) -> set[str]:
        """The symbols of which there are documents."""
        return set(self._data[collection_name(window)].distinct("symbol"))

    def count_cut_off(self, window: str, kept: Kept) -> int:
        """How many documents of a collection are not to be kept."""
        collection = self._data[collection_name(window)]
        return sum(collection.count_documents(_cut_off(cut)) for cut in kept)

    def remove_cut_off(self, window: str, kept: Kept) -> int:
        """Remove the documents that are not to be kept, the oldest first, some at a time; returns how many."""
        collection = self._data[collection_name(window)]
        removed = 0
        for cut in kept:
            # Reads the index only, and mostly finds nothing.
            oldest = collection.find(_cut_off(cut), {"_id": False, "timestamp": True}).sort("timestamp", ASCENDING)
            while some := list(oldest.clone().limit(CUT_OFF_AT_ONCE)):
                until = {"symbol": cut.symbol, "timestamp": {"$lte": some[-1]["timestamp"]}}
                removed += collection.delete_many(until).deleted_count
                self._progress(f"removing from {collection.name}")
        return removed

    def move_cuts(self, window: str, found: Loaded, kept: Kept) -> bool:
        """Replace the cuts of the record that was found; whether it still was of that table and had those cuts."""
        same = {"_id": collection_name(window), "table_id": found.table_id, "kept": _cuts_recorded(found.kept)}
        return bool(self._records.update_one(same, {"$set": {"kept": _cuts_recorded(kept)}}).matched_count)

    def recount(self, window: str, found: Loaded) -> None:
        """Say in the record, if it still is of that table, how many documents there are."""
        same = {"_id": collection_name(window), "table_id": found.table_id}
        self._records.update_one(same, {"$set": {"documents": self.documents(window)}})

    def record(self, window: str, loaded: Loaded, found: Loaded | None = None) -> Loaded | None:
        """Record what is loaded, in the place of the record that was found; None when that is done.

        Otherwise there is another, which is returned: of a later version, as a concurrent load was quicker, or with
        cuts that have moved meanwhile. Raises LoadError when that which was found is no more: the collection is being
        loaded anew.
        """
        name = collection_name(window)
        ours: Record = {"delta_version": {"$lte": loaded.delta_version}, "kept": _cuts_recorded(loaded.kept)}
        least = found.delta_version if found is not None and found.table_id == loaded.table_id else 0
        ours["delta_version"]["$gte"] = least
        replaceable = {"_id": name, "$or": [{"table_id": {"$ne": loaded.table_id}}, ours]}
        record: Record = {"_id": name, **loaded._asdict(), "kept": _cuts_recorded(loaded.kept)}
        try:
            if self._records.replace_one(replaceable, record, upsert=found is None).matched_count or found is None:
                return None
        except DuplicateKeyError:
            pass  # there is one that is not to be replaced
        there = self._records.find_one({"_id": name})
        if there is None or there["delta_version"] < least or not keeps_no_more(_loaded(there).kept, loaded.kept):
            raise LoadError(f"{name} is being loaded anew meanwhile: load once more")
        return _loaded(there)

    def forget(self, window: str) -> None:
        """Remove the record: the next load starts from the beginning."""
        self._records.delete_one({"_id": collection_name(window)})


def _loaded(record: Record) -> Loaded:
    # Records of before there were cuts have none.
    kept = tuple(Cutoff(each["symbol"], each["begin"]) for each in record.get("kept") or ())
    return Loaded(
        record["table_id"],
        record["delta_version"],
        record["documents"],
        record["loaded_at"],
        kept,
        record.get("fingerprint"),
    )


def _cuts_recorded(kept: Kept) -> list[Document] | None:
    """Cuts as they stand in a record: None is what a record without that field has, too, for MongoDB."""
    return [cut._asdict() for cut in kept] or None


def _cut_off(cut: Cutoff) -> Document:
    """The condition that a document is before a cut."""
    return {"symbol": cut.symbol, "timestamp": {"$lt": cut.begin}}


def client(uri: str, timeout_ms: int) -> MongoClient[Document]:
    """A client that connects when first used. Raises ConfigurationError, which quotes nothing of a wrong address."""
    try:
        return MongoClient(
            uri,
            serverSelectionTimeoutMS=timeout_ms,
            connectTimeoutMS=timeout_ms,
            tz_aware=True,
            appname="tickhouse",
        )
    except InvalidURI:
        # The driver quotes the part that it stumbles over, which may be one of the password.
        raise ConfigurationError("no valid connection string: percent-encode user and password") from None
    except (ValueError, OSError) as error:  # a port that is no number, a file of certificates that is not there
        raise ConfigurationError(str(error)) from error


def _epoch_ms(moment: datetime.datetime) -> int:
    return (moment - _EPOCH) // datetime.timedelta(milliseconds=1)


COLLECTION_ASSETS = {window: f"zscore_{window}" for window in WINDOWS}
"""Window to the asset of its collection."""
