"""Limits to compare with: what the same work costs without a stream, and what the stream costs without the work."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from confluent_kafka import Consumer

from bench.rates import rounded
from bench.testbed import Ground
from bench.ticks import Integers, Walk, payloads
from spark_jobs.compute import first_passage, ordering, sliding
from tickhouse.contract.batch_validation import accept_batch
from tickhouse.contract.encoding import form_messages, pack_results
from tickhouse.contract.names import (
    HIGHER_TOPIC,
    LOWER_TOPIC,
    MOVING_TOPIC,
    PASSAGE_HORIZON_MS,
    PRICE_SCALE,
    TICKS_TOPIC,
    WINDOWS,
    ZSCORE_TOPIC,
)

LATENESS_MS = 10_000
BATCH_TICKS = 100_000
"""As many as a stream's micro-batch has in a backlog."""
_ANY_TIME = 2**43


class MemoryChunks(dict[int, bytes]):
    """`sliding.Chunks` in memory."""

    load = dict.__getitem__
    store = dict.__setitem__
    remove = dict.__delitem__


class SymbolKernel:
    """All that is computed for one symbol, in the modules that the streams use, with the state in memory."""

    def __init__(self) -> None:
        self._buffer = ordering.EMPTY_BUFFER
        self._index = sliding.empty_index()
        self._chunks = MemoryChunks()
        self._waiting = first_passage.NONE_WAITING

    def take(self, timestamps: Integers, prices: Integers) -> tuple[Any, ...]:
        """A micro-batch's ticks, shape (n,): what was released, its statistics, z-scores and passages."""
        released = ordering.release(self._buffer, timestamps, prices, LATENESS_MS)
        self._buffer = released.buffer
        passages = first_passage.advance(
            self._waiting,
            released.timestamps,
            released.prices,
            released.buffer.largest - LATENESS_MS,
            PASSAGE_HORIZON_MS,
        )
        self._waiting = passages.waiting
        if not len(released.timestamps):
            return released, None, None, passages
        self._index, statistics = sliding.advance(self._index, self._chunks, released.timestamps, released.prices)
        spread = np.where(statistics.deviations > 0, statistics.deviations, np.nan)
        scores = (released.prices / PRICE_SCALE - statistics.averages) / spread
        return released, statistics, scores, passages

    @property
    def state_bytes(self) -> int:
        """Bytes of state: the ticks that wait, the chunks of the longest window with their index, open passages."""
        parts = (self._buffer.to_bytes(), self._index.tobytes(), self._waiting.to_bytes(), *self._chunks.values())
        return sum(map(len, parts))


def blocks(walk: Walk) -> Iterator[tuple[Integers, Integers]]:
    """Timestamps (steps,) and prices in units (steps, symbols) of one micro-batch after the other."""
    steps = max(1, BATCH_TICKS // len(walk.names))
    units = walk.units()
    for begin in range(0, len(walk.timestamps), steps):
        yield walk.timestamps[begin : begin + steps], units[begin : begin + steps]


def kernels(walk: Walk, seconds: float) -> float:
    """Ticks a second of the kernels alone, for about so long."""
    symbols = [SymbolKernel() for _ in walk.names]
    began, done = time.perf_counter(), 0
    for timestamps, units in blocks(walk):
        for symbol, column in zip(symbols, units.T, strict=True):
            symbol.take(timestamps, np.ascontiguousarray(column))
        done += units.size
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began)


def kernels_with_messages(walk: Walk, seconds: float) -> float:
    """The same from the bytes of the messages that come in to those of the four that go out for each tick."""
    symbols = {name: SymbolKernel() for name in walk.names}
    source = payloads(walk)
    spent, done = 0.0, 0
    while spent < seconds:
        taken = list(itertools.islice(source, BATCH_TICKS))
        if not taken:
            break
        values = [payload.value for payload in taken]
        keys = pa.array([payload.key for payload in taken], pa.binary())
        began = time.perf_counter()
        results: dict[str, list[tuple[str, bytes]]] = {}
        verdicts = accept_batch(keys, pa.array(values, pa.binary()), np.full(len(values), _ANY_TIME))
        assert not verdicts.reasons
        for name, mine in verdicts.ticks_by_symbol():
            released, statistics, scores, passages = symbols[name].take(
                verdicts.timestamps[mine], verdicts.prices[mine]
            )
            for topic, packed in _packed(released, statistics, scores, passages).items():
                results.setdefault(topic, []).append((name, packed))
        for topic, of_topic in results.items():
            form_messages(topic, of_topic)
        spent += time.perf_counter() - began
        done += len(values)
    return done / spent


def _packed(released: Any, statistics: Any, scores: Any, passages: Any) -> dict[str, bytes]:
    """What a symbol's kernel has given, packed for each topic."""
    packed = {HIGHER_TOPIC: pack_results(*passages.higher), LOWER_TOPIC: pack_results(*passages.lower)}
    if statistics is not None:
        columns = statistics.averages, statistics.deviations, statistics.counts
        packed[MOVING_TOPIC] = pack_results(released.timestamps, *columns)
        packed[ZSCORE_TOPIC] = pack_results(released.timestamps, scores)
    return packed


def polars_rolling(walk: Walk, seconds: float) -> float:
    """Ticks a second of Polars' rolling mean, deviation and count by time, and the z-scores, over as many ticks as it
    does in about so long; in batch, in memory, on all cores, in doubles."""
    ticks = min(walk.ticks, 200_000)
    while True:
        steps = ticks // len(walk.names)
        frame = pl.DataFrame(
            {
                "symbol": np.repeat(walk.names, steps),
                "timestamp": np.tile(walk.timestamps[:steps], len(walk.names)).astype("datetime64[ms]"),
                "price": np.ascontiguousarray(walk.cents[:steps].T).ravel() / 100,
                "one": np.ones(steps * len(walk.names), dtype=np.int64),
            }
        )
        began = time.perf_counter()
        columns = []
        for name, length in WINDOWS.items():
            window = f"{length // 1000}s"
            mean = pl.col("price").rolling_mean_by("timestamp", window).over("symbol")
            deviation = pl.col("price").rolling_std_by("timestamp", window).over("symbol")
            count = pl.col("one").rolling_sum_by("timestamp", window).over("symbol")
            columns += [mean.alias(f"mean-{name}"), deviation.alias(f"std-{name}"), count.alias(f"count-{name}")]
            columns.append(((pl.col("price") - mean) / deviation).alias(f"z-{name}"))
        frame.lazy().with_columns(columns).collect()
        elapsed = time.perf_counter() - began
        if elapsed > seconds / 3 or 2 * ticks > walk.ticks:
            return steps * len(walk.names) / elapsed
        ticks *= 2


def consume_produce(ground: Ground, walk: Walk, seconds: float) -> float:
    """Ticks a second of a loop that reads ticks and sends two messages as large as their results for each, at most for
    so long; nothing is computed and nothing is exactly once. The ticks of `walk` are on the price topic."""
    ground.renew()
    statistics, scores = _sample_messages(walk)
    consumer = Consumer(
        {"bootstrap.servers": ground.bootstrap, "group.id": f"bench-{uuid.uuid4()}", "auto.offset.reset": "earliest"}
    )
    producer = ground.producer({"linger.ms": 5, "compression.type": "lz4", "queue.buffering.max.messages": 500_000})
    consumer.subscribe([TICKS_TOPIC])
    done, began = 0, 0.0
    try:
        while done < walk.ticks and (not began or time.perf_counter() - began < seconds):
            messages = consumer.consume(10_000, timeout=1.0)
            began = began or time.perf_counter()
            for message in messages:
                key = message.key()
                for topic, value in ((MOVING_TOPIC, statistics), (ZSCORE_TOPIC, scores)):
                    while True:
                        try:
                            producer.produce(topic, value, key)
                            break
                        except BufferError:
                            producer.poll(0.1)
            producer.poll(0)
            done += len(messages)
        producer.flush(30)
        return done / (time.perf_counter() - began)
    finally:
        consumer.close()


def _sample_messages(walk: Walk) -> tuple[bytes, bytes]:
    steps = min(len(walk.timestamps), 400)
    packed = _packed(*SymbolKernel().take(walk.timestamps[:steps], walk.units()[:steps, 0].copy()))
    moving, scores = (
        form_messages(topic, [(walk.names[0], packed[topic])])[1] for topic in (MOVING_TOPIC, ZSCORE_TOPIC)
    )
    return moving[-1], scores[-1]


def measure(ground: Ground, walk: Walk, seconds: float) -> dict[str, Any]:
    """All limits, in ticks a second; the ticks of `walk` are on the price topic of the ground."""
    return {
        "kernels in memory": rounded(kernels(walk, seconds)),
        "kernels in memory, from JSON to JSON": rounded(kernels_with_messages(walk, seconds)),
        "Polars rolling windows, batch": rounded(polars_rolling(walk, seconds)),
        "bare consume-produce loop": rounded(consume_produce(ground, walk, seconds)),
    }
