"""Symbols' state on Spark's: what is small in one value for a whole bucket, what is large in chunks of a minute.

Each call to Spark's state goes to another process and back, and costs what computing hundreds of ticks costs. So all
that an operator rewrites in every micro-batch is one value for the symbols of a bucket, read once and written once:
small blobs, and the newest chunk of each kind, which is the one that grows. A chunk goes to a map of its own when a
newer one begins.

Symbols that have had no news for long would be read and written with the others of their bucket for ever. They are
parked in another map, each by itself, and come back with their next news, as they were: nothing is forgotten.
"""

from __future__ import annotations

import struct
import uuid
from collections import OrderedDict
from itertools import islice

from pyspark.sql.streaming.stateful_processor import MapState, StatefulProcessorHandle

from spark_jobs.framing import decode_blobs, encode_blobs

_NUMBER = struct.Struct("<q")
_IDENTITY = "identity"
_HEADER = ""
"""The place in a bucket of the number of the round that it is in, and of its visits in it. No symbol is called that."""
_COUNTS = struct.Struct("<qq")
_ROUND = "round"
"""A symbol's blob: the round in which it had news last."""
_ROUND_VISITS = 1_000
"""Who has had no news in so many micro-batches of a bucket, and up to twice as many, is parked."""
_PARKED_AT_ONCE = 50


class SymbolState:
    """The small blobs of one symbol after the other.

    `load` comes before anything else, then `turn_to` for each symbol that there is something for, at last `save`.
    """

    def __init__(self, handle: StatefulProcessorHandle) -> None:
        self._value = handle.getValueState("small", "content binary")
        self._parked: MapState = handle.getMapState("parked", "symbol string", "content binary")
        self._bucket: dict[str, bytes] = {}
        self._bucket_changed = False
        self._blobs: dict[str, bytes] = {}
        self._changed = False
        self.symbol = ""
        """Whose turn it is."""

    def load(self) -> None:
        """Read what there is for the bucket whose turn it is at Spark's."""
        value = self._value.get()
        self._bucket = {} if value is None else decode_blobs(bytes(value[0]))
        self._round, self._visits = _COUNTS.unpack(self._bucket.get(_HEADER, bytes(_COUNTS.size)))
        self._bucket_changed = self._changed = False

    def turn_to(self, symbol: str) -> None:
        """Leave the symbol whose turn it was for another."""
        self._put_away()
        self.symbol = symbol
        if symbol not in self._bucket:
            self._fetch(symbol)
        self._blobs = decode_blobs(self._bucket.get(symbol, b""))

    def save(self) -> None:
        """Write what has changed."""
        self._put_away()
        if self._bucket_changed:
            self._visits += 1
            if self._visits >= _ROUND_VISITS:
                self._park()
            self._bucket[_HEADER] = _COUNTS.pack(self._round, self._visits)
            self._value.update((encode_blobs(self._bucket),))

    def _fetch(self, symbol: str) -> None:
        """Have a symbol in the bucket that is not there, if it is parked."""
        parked = self._parked.getValue((symbol,))
        if parked is not None:
            self._bucket[symbol] = bytes(parked[0])
            self._parked.removeKey((symbol,))
            self._bucket_changed = True

    def _park(self) -> None:
        """Park some of those that have had no news in this round; the next one begins when there are no more."""
        current = _NUMBER.pack(self._round)
        quiet = (
            symbol
            for symbol, content in self._bucket.items()
            if symbol != _HEADER and decode_blobs(content).get(_ROUND) != current
        )
        doomed = list(islice(quiet, _PARKED_AT_ONCE))
        for symbol in doomed:
            self._parked.updateValue((symbol,), (self._bucket.pop(symbol),))
        if len(doomed) < _PARKED_AT_ONCE:
            self._round, self._visits = self._round + 1, 0

    def _put_away(self) -> None:
        if self._changed:
            self._blobs[_ROUND] = _NUMBER.pack(self._round)
            self._bucket[self.symbol] = encode_blobs(self._blobs)
            self._bucket_changed = True
            self._changed = False

    def get(self, name: str) -> bytes | None:
        """A blob, None where there is none."""
        return self._blobs.get(name)

    @property
    def identity(self) -> bytes:
        """What tells this symbol's state of this query from all others, as long as it lives."""
        if _IDENTITY not in self._blobs:
            self.put(_IDENTITY, uuid.uuid4().bytes)
        return self._blobs[_IDENTITY]

    def put(self, name: str, content: bytes | None) -> None:
        """Replace a blob, or remove it."""
        if content is not None:
            self._blobs[name] = content
        else:
            self._blobs.pop(name, None)
        self._changed = True


class ChunkCache:
    """Chunks that never change any more, in the worker's memory: the least recently used go first.

    A micro-batch that is repeated makes the same ones again, so what a failed attempt has left here is right.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._chunks: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()

    def get(self, identity: bytes, minute: int) -> bytes | None:
        """A chunk, if it is there."""
        chunk = self._chunks.get((identity, minute))
        if chunk is not None:
            self._chunks.move_to_end((identity, minute))
        return chunk

    def put(self, identity: bytes, minute: int, chunk: bytes) -> None:
        """Keep a chunk, and let go of others if there are too many."""
        self.forget(identity, minute)
        self._chunks[identity, minute] = chunk
        self._bytes += len(chunk)
        while self._bytes > self._most:
            self._bytes -= len(self._chunks.popitem(last=False)[1])

    def forget(self, identity: bytes, minute: int) -> None:
        """Let go of a chunk, if it is there."""
        self._bytes -= len(self._chunks.pop((identity, minute), b""))


class ChunkState:
    """One-minute chunks of the symbol whose turn it is: `sliding.Chunks`.

    With a cache, chunks before the newest must never change.
    """

    def __init__(
        self, handle: StatefulProcessorHandle, state: SymbolState, name: str, cache: ChunkCache | None = None
    ) -> None:
        self._map: MapState = handle.getMapState(name, "symbol string, minute bigint", "chunk binary")
        self._state = state
        self._newest = f"newest of {name}"
        self._cache = cache

    def load(self, minute: int) -> bytes:
        """A chunk. Raises LookupError when there is none."""
        newest, chunk = self._open()
        if minute == newest:
            return chunk
        cached = self._cache.get(self._state.identity, minute) if self._cache else None
        if cached is not None:
            return cached
        value = self._map.getValue((self._state.symbol, minute))
        if value is None:
            raise LookupError(f"the state holds no chunk of minute {minute}, though its index names it")
        chunk = bytes(value[0])
        if self._cache:
            self._cache.put(self._state.identity, minute, chunk)
        return chunk

    def store(self, minute: int, chunk: bytes) -> None:
        """Keep a chunk in the place of that minute's, if there is one."""
        newest, former = self._open()
        if newest is None or minute >= newest:
            self._state.put(self._newest, _NUMBER.pack(minute) + chunk)
            if newest is not None and minute > newest:
                self._close(newest, former)
        else:
            self._close(minute, chunk)

    def remove(self, minute: int) -> None:
        """Let go of a chunk that there is."""
        if minute == self._open()[0]:
            self._state.put(self._newest, None)
            return
        self._map.removeKey((self._state.symbol, minute))
        if self._cache:
            self._cache.forget(self._state.identity, minute)

    def _open(self) -> tuple[int | None, bytes]:
        content = self._state.get(self._newest)
        return (None, b"") if content is None else (_NUMBER.unpack_from(content)[0], content[_NUMBER.size :])

    def _close(self, minute: int, chunk: bytes) -> None:
        self._map.updateValue((self._state.symbol, minute), (chunk,))
        if self._cache:
            self._cache.put(self._state.identity, minute, chunk)
