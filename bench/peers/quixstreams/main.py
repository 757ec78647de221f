"""Quix Streams: a StreamingDataFrame with a stateful function, state in RocksDB with changelog topics, exactly once.

Its own sliding windows update every window that a tick is in, some 36,000 of an hour at ten ticks a second, so the work
is done in a stateful function, which its documentation has for custom logic: two reads and writes of a window's edge.
"""

from __future__ import annotations

import os
import pickle
from struct import Struct
from typing import Any

from quixstreams import Application, State
from rolling import Rolling, messages, read_tick

COMMIT_SECONDS = 1.0
"""Its default is 5 s; results are readable once they are committed."""
_TICK = Struct("<qq")


class StateHistory:
    """A history in the library's state, one entry for each tick."""

    def __init__(self, state: State) -> None:
        self._state = state

    def put(self, number: int, tick: tuple[int, int]) -> None:
        self._state.set_bytes(str(number), _TICK.pack(*tick))

    def get(self, number: int) -> tuple[int, int]:
        return _TICK.unpack(self._state.get_bytes(str(number)))  # type: ignore[return-value,arg-type]

    def remove(self, number: int) -> None:
        self._state.delete(str(number))


def windows(value: bytes, state: State) -> list[tuple[bytes, bytes]]:
    """The messages of all ticks that this one makes final."""
    symbol, timestamp, units = read_tick(value)
    kept = state.get_bytes("rolling")
    rolling = Rolling() if kept is None else pickle.loads(kept)
    results = [messages(symbol, *final) for final in rolling.add(StateHistory(state), timestamp, units)]
    state.set_bytes("rolling", pickle.dumps(rolling, pickle.HIGHEST_PROTOCOL))
    return results


def main() -> None:
    app = Application(
        broker_address=os.environ["PEER_BOOTSTRAP"],
        consumer_group="quix",
        auto_offset_reset="earliest",
        state_dir=os.environ["PEER_STATE"],
        processing_guarantee="exactly-once",
        commit_interval=COMMIT_SECONDS,
        loglevel="WARNING",
    )
    source = app.topic("btc-price", value_deserializer="bytes", key_deserializer="str")
    topics: list[Any] = [
        app.topic(name, value_serializer="bytes", key_serializer="str")
        for name in ("btc-price-moving", "btc-price-zscore")
    ]
    results = app.dataframe(source).apply(windows, stateful=True, expand=True)
    for position, topic in enumerate(topics):
        results.apply(lambda pair, at=position: pair[at]).to_topic(topic)
    app.run()


if __name__ == "__main__":
    main()
