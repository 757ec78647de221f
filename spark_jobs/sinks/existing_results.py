"""Which results are on the output topics when a checkpoint is made: a new one must not publish them once more.

A query without a checkpoint computes all from the first message that is still there. Of each symbol results are
published nearly in the order of time: those some minutes before the newest are all there, or were removed by the
broker since. So it is enough to know the newest one, and which there are of the minutes before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickhouse.contract.arrays import Integers
from tickhouse.contract.names import PASSAGE_HORIZON_MS
from tickhouse.kafka.offsets import Offsets, named, numbered
from tickhouse.kafka.range_reader import OffsetRange, read, values
from tickhouse.kafka.topics import TopicWatch

_SLACK_MS = 120_000
_HEAD = r'^\{"timestamp":"(?P<time>[0-9-]{10}T[0-9:.]{12})Z","symbol":"(?P<symbol>[^"]+)",'


class OfSymbol(NamedTuple):
    """Results of one symbol on one topic."""

    complete: int
    """All up to this timestamp (milliseconds) are there, or were."""
    later: Integers
    """The timestamps of those after it, increasing."""

    def lacks(self, timestamps: Integers) -> Integers:
        """The positions in `timestamps` of results that are not there."""
        fresh = (timestamps > self.complete) & ~np.isin(timestamps, self.later)
        positions: Integers = np.flatnonzero(fresh)
        return positions


Existing = dict[str, dict[str, OfSymbol]]
"""By topic and symbol."""


class Survey(NamedTuple):
    """What was found, and up to which offsets of the topics."""

    existing: Existing
    ends: Offsets

    def to_json(self) -> str:
        """For a file."""
        existing = {
            topic: {symbol: [found.complete, found.later.tolist()] for symbol, found in symbols.items()}
            for topic, symbols in self.existing.items()
        }
        return json.dumps({"existing": existing, "ends": named(self.ends)})

    @classmethod
    def from_json(cls, text: bytes | str) -> Survey:
        """What `to_json` gave."""
        content = json.loads(text)
        existing = {
            topic: {
                symbol: OfSymbol(complete, np.array(later, dtype=np.int64))
                for symbol, (complete, later) in symbols.items()
            }
            for topic, symbols in content["existing"].items()
        }
        return cls(existing, numbered(content["ends"]))


def survey(
    topics: Sequence[str],
    client: Mapping[str, str],
    lateness_ms: int,
    known: Survey | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Survey:
    """Look through the committed messages of output topics, from where `known` ends.

    `alive` is called now and then. Raises TopicsUnknown, and what `RangeReader.read` raises.
    """
    watch, known = TopicWatch(topics, client), known or Survey({}, {})
    first, ends = watch.first(), watch.committed()
    existing: Existing = {}
    for topic in topics:
        held = dict(known.existing.get(topic, {}))
        read_before = known.ends.get(topic, {})
        begins = {number: max(offset, read_before.get(number, 0)) for number, offset in first[topic].items()}
        for batch in read(OffsetRange(topic, begins, ends[topic]), client):
            for symbol, timestamps in _timestamps(values(batch)):
                held[symbol] = add(held.get(symbol), timestamps, lateness_ms)
            alive()
        existing[topic] = held
    return Survey(existing, ends)


def add(held: OfSymbol | None, timestamps: Integers, lateness_ms: int) -> OfSymbol:
    """With results more, by their timestamps in any order."""
    times = np.unique(timestamps if held is None else np.concatenate((held.later, timestamps)))
    # Waits are certain 20 s after their tick, at the latest, and what is on time may come as late as the lateness.
    complete = int(times[-1]) - lateness_ms - PASSAGE_HORIZON_MS - _SLACK_MS
    if held is not None:
        complete = max(complete, held.complete)
    return OfSymbol(complete, times[times > complete])


def _timestamps(messages: pa.Array) -> Iterator[tuple[str, Integers]]:
    """The timestamps of results by symbol; what is no result is left out."""
    found = pc.extract_regex(messages, pattern=_HEAD)
    found = found.filter(pc.is_valid(found))
    times = found.field("time").cast(pa.string()).cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
    symbols = found.field("symbol").dictionary_encode()
    of_symbol = symbols.indices.to_numpy()
    for number, symbol in enumerate(symbols.dictionary.to_pylist()):
        yield symbol.decode(), times[of_symbol == number]


def lacking(
    existing: Mapping[str, OfSymbol], results: Iterable[tuple[str, bytes]], rows: int
) -> Iterator[tuple[str, bytes]]:
    """Of symbols and their results, packed in `rows` rows of words, those that are not there."""
    for symbol, packed in results:
        held = existing.get(symbol)
        if held is None:
            yield symbol, packed
            continue
        words = np.frombuffer(packed, dtype="<i8").reshape(rows, -1)
        fresh = held.lacks(words[0])
        if len(fresh):
            yield symbol, words[:, fresh].tobytes()
