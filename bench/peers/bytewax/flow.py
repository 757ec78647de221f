"""Bytewax: `python -m bytewax.run flow:flow`, with its Kafka operators, a stateful operator and recovery.

Its own windows begin on a fixed grid and are final by the wall clock, so the work is done in `stateful_batch`, which
its documentation has for such logic. Delivery is at least once.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from rolling import Rolling, messages, read_tick

BROKERS = [os.environ["PEER_BOOTSTRAP"]]
Result = tuple[bytes, bytes]


class DictHistory(dict[int, tuple[int, int]]):
    """A history in memory, copied at each snapshot."""

    put = dict.__setitem__
    get = dict.__getitem__  # type: ignore[assignment]
    remove = dict.__delitem__


State = tuple[Rolling, DictHistory]


class Windows(StatefulBatchLogic[tuple[str, int, int], Result, State]):
    """The windows of one symbol, whose name comes with its ticks: the builder is not told the key."""

    def __init__(self, state: State | None) -> None:
        self._rolling, self._history = state or (Rolling(), DictHistory())

    def on_batch(self, values: list[tuple[str, int, int]]) -> tuple[Iterable[Result], bool]:
        results = [
            messages(symbol, *final)
            for symbol, timestamp, units in values
            for final in self._rolling.add(self._history, timestamp, units)
        ]
        return results, StatefulBatchLogic.RETAIN

    def snapshot(self) -> State:
        return copy.deepcopy(self._rolling), DictHistory(self._history)


def parse(message: KafkaSourceMessage[bytes, bytes]) -> tuple[str, tuple[str, int, int]]:
    """A keyed tick."""
    tick = read_tick(message.value)
    return tick[0], tick


flow = Dataflow("ticks")
source = kafka.input("ticks-in", flow, brokers=BROKERS, topics=["btc-price"])
ticks = op.map("parse", source.oks, parse)
results = op.stateful_batch("windows", ticks, Windows)
for position, topic in enumerate(("btc-price-moving", "btc-price-zscore")):
    sent = op.map(f"to-{topic}", results, lambda one, at=position: KafkaSinkMessage(one[0].encode(), one[1][at]))
    kafka.output(f"{topic}-out", sent, brokers=BROKERS, topic=topic)
