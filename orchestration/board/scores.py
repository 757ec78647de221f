"""z-scores as MongoDB serves them."""

from __future__ import annotations

import datetime

import numpy as np
from pymongo import DESCENDING

from orchestration.board.rows import Rows, no_rows
from orchestration.serving.mongo import COLLECTIONS, DATABASE, RECORDS_COLLECTION, RECORDS_DATABASE, client

_SECONDS = 0.6


class Scores:
    """The collections behind `uri`. Whatever is asked raises pymongo's PyMongoError when the server is away."""

    def __init__(self, uri: str) -> None:
        """Connect when first used. Raises ConfigurationError when the address is wrong."""
        self._client = client(uri, round(_SECONDS * 1_000))
        self._data = self._client[DATABASE]
        self._records = self._client[RECORDS_DATABASE][RECORDS_COLLECTION]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def loaded(self) -> tuple[tuple[str, str, int], ...]:
        """Which version of which table each collection holds: it changes whenever something was loaded."""
        records = self._records.find(projection=["table_id", "delta_version"])
        return tuple(sorted((record["_id"], record["table_id"], record["delta_version"]) for record in records))

    def symbols(self) -> list[str]:
        """All symbols that there are, sorted. The index is read, once for each symbol."""
        collection = next(iter(COLLECTIONS.values()))
        return sorted(str(symbol) for symbol in self._data[collection].distinct("symbol"))

    def read(self, symbol: str, span_ms: int) -> dict[str, Rows]:
        """The newest `span_ms` milliseconds of a symbol, by window."""
        found = {}
        for window, name in COLLECTIONS.items():
            collection = self._data[name]
            newest = collection.find_one({"symbol": symbol}, ["timestamp"], sort=[("timestamp", DESCENDING)])
            if newest is None:
                found[window] = no_rows(1)
                continue
            start = newest["timestamp"] - datetime.timedelta(milliseconds=span_ms)
            documents = collection.find(
                {"symbol": symbol, "timestamp": {"$gte": start}},
                {"_id": False, "timestamp": True, "zscore_price": True},
                sort=[("timestamp", 1)],
                batch_size=10_000,
            )
            pairs = [(document["timestamp"].timestamp(), document["zscore_price"]) for document in documents]
            seconds, values = zip(*pairs, strict=True)
            times = np.round(np.array(seconds) * 1_000).astype(np.int64)
            found[window] = Rows(times, np.array([values], dtype=np.float64))
        return found
