"""Filling MongoDB from the table of z-scores: how many documents a second, beside what the server takes at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pymongo import ASCENDING, MongoClient, WriteConcern

from bench.rates import rounded
from orchestration.lakehouse.tables import Lakehouse
from orchestration.local import mongod, processes
from orchestration.local.artifacts import mongod_binary
from orchestration.local.ports import free_port
from orchestration.serving.load import documents_of, load
from orchestration.serving.mongo import BULK, Document, MongoStore
from spark_jobs.sinks.delta import TableTarget, append, create_table
from tickhouse.contract.decoding import read_results, table_rows
from tickhouse.contract.encoding import form_messages, pack_results
from tickhouse.contract.names import WINDOWS, ZSCORE_TOPIC

_FIRST_MS = 1_746_709_560_000
_ROWS_A_COMMIT = 20_000
_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0


def measure(folder: Path, tools: Path, rows: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Documents a second of a load in catch-up of `rows` ticks, and of bare inserts of the same documents.

    Both journaled, into collections with the same index, from one thread for each collection; the documents of the bare
    inserts are made before the clock starts.
    """
    batches = [_scores(first, _ROWS_A_COMMIT) for first in range(0, rows, _ROWS_A_COMMIT)]
    target = TableTarget("zscores", str(folder / "lakehouse" / "zscores"), folder)
    create_table(target)
    for number, batch in enumerate(batches):
        append(target, iter([batch]), "bench", number)
    server = mongod.Mongod(folder / "mongo", free_port())
    process = processes.start(folder, "mongod", server.command(mongod_binary(tools, os.environ)), os.environ)
    try:
        mongod.wait_ready(server.uri, lambda: processes.alive(process), _READY_SECONDS)
        tell("bare inserts")
        bare = _bare(server.uri, batches)
        tell("load")
        loaded = _load(server.uri, folder / "lakehouse")
    finally:
        processes.stop(process, _STOP_SECONDS)
    return {"rows": rows, "documents_per_second": rounded(loaded), "server_documents_per_second": rounded(bare)}


def _scores(first: int, count: int) -> pa.RecordBatch:
    random = np.random.default_rng(first)
    times = _FIRST_MS + 100 * np.arange(first, first + count)
    packed = pack_results(times, random.normal(size=(len(WINDOWS), count)))
    _, messages = form_messages(ZSCORE_TOPIC, [("BTCUSDT", packed)])
    values = pa.array(messages, pa.binary())
    return table_rows("zscores", read_results(ZSCORE_TOPIC, pa.array([b"BTCUSDT"] * len(messages)), values))


def _load(uri: str, lakehouse: Path) -> float:
    store = MongoStore(uri)
    try:
        began = time.perf_counter()
        done = load(Lakehouse(str(lakehouse)), store)
        return sum(each.rows for each in done) / (time.perf_counter() - began)
    finally:
        store.close()


def _bare(uri: str, batches: list[pa.RecordBatch]) -> float:
    spent, written = 0.0, 0
    with MongoClient[Document](uri) as client, ThreadPoolExecutor(len(WINDOWS)) as pool:
        database = client.get_database("bare", write_concern=WriteConcern(w="majority", j=True))
        for window in WINDOWS:
            database[window].create_index([("symbol", ASCENDING), ("timestamp", ASCENDING)])
        for batch in batches:
            documents = documents_of(batch, tuple(WINDOWS))
            began = time.perf_counter()
            for done in [pool.submit(_insert, database[window], documents[window]) for window in WINDOWS]:
                done.result()
            spent += time.perf_counter() - began
            written += len(batch) * len(WINDOWS)
    return written / spent


def _insert(collection: Any, documents: list[Document]) -> None:
    for first in range(0, len(documents), BULK):
        collection.insert_many(documents[first : first + BULK], ordered=False)
