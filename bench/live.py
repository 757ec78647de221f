"""Ticks as they happen: how long after a tick its z-score can be read, and what that costs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bench import usage
from bench.rates import rounded, summary
from bench.systems import Contestant
from bench.testbed import FAILURES, Ground, last_words, stop_all
from bench.ticks import STEP_MS, names, random_walk, timestamp_texts, value_of
from orchestration.local import broker as kafka
from orchestration.local import processes
from tickhouse.contract.names import TICKS_TOPIC
from tickhouse.contract.topology import TOPICS
from tickhouse.contract.validation import parse_timestamp

LATENESS_SECONDS = 10.0
_FIRST_RESULT_SECONDS = 90.0
_LOOK_SECONDS = 1.0
_STAMP = slice(14, 38)
"""Where the timestamp is in a message that begins as the contract's do."""


def live(
    ground: Ground,
    contestant: Contestant,
    symbols: int,
    settle_seconds: float,
    seconds: float,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Send ten ticks a second and symbol, and look on for `seconds` once results have flowed for `settle_seconds`.

    A delay is the time from the moment at which a tick was sent to that at which a `read_committed` consumer has its
    result, less the lateness for which every right result has to wait. Returns the contestant's figures.
    """
    ground.renew(TOPICS)
    home = ground.new_home(contestant.name)
    sender = _Sender(ground, symbols)
    reader = _Reader(ground, contestant.delayed_on, sender)
    try:
        running = contestant.start(ground, home)
        sender.start()
        reader.start()
        figures = _observe(contestant, running, sender, reader, settle_seconds, seconds, tell)
    except FAILURES as error:
        return {"failure": f"{type(error).__name__}: {error}"[:600]}
    finally:
        for thread in (sender, reader):
            thread.stop()
        stop_all(home)
    return figures


def _observe(
    contestant: Contestant,
    running: list[processes.Process],
    sender: _Sender,
    reader: _Reader,
    settle_seconds: float,
    seconds: float,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    began = time.monotonic()
    while not reader.results:
        time.sleep(_LOOK_SECONDS)
        tell(f"no result yet after {time.monotonic() - began:.0f} s")
        if not all(processes.alive(process) for process in running):
            return {"failure": f"ended: {last_words(running)}"}
        if time.monotonic() - began > _FIRST_RESULT_SECONDS:
            return {"failure": f"no result within {_FIRST_RESULT_SECONDS:.0f} s"}
    time.sleep(settle_seconds)
    reader.forget()
    memory, meter = usage.LargestMemory(running), usage.CpuMeter(running)
    cpu, sent, then = meter.seconds(), sender.sent, time.monotonic()
    while (elapsed := time.monotonic() - then) < seconds:
        time.sleep(_LOOK_SECONDS)
        memory.look()
        meter.seconds()
        tell(f"{len(reader.delays):,} results, {elapsed:.0f} of {seconds:.0f} s")
    cpu, sent = meter.seconds() - cpu, sender.sent - sent
    delays = summary(list(reader.delays))
    owed = sent if contestant.per_tick else 0
    return {
        "symbols": sender.symbols,
        "ticks_per_second": rounded(sent / elapsed),
        "delay": {name: rounded(value) for name, value in delays.items()},
        "kept_up": delays["results"] >= 0.9 * owed,
        "cores": rounded(cpu / elapsed),
        "cpu_seconds_per_million": rounded(cpu / sent * 1e6),
        "peak_megabytes": rounded(memory.megabytes),
    }


class _Sender(threading.Thread):
    """Sends a walk in real time: every 100 ms one tick of each symbol, with that moment as its timestamp."""

    def __init__(self, ground: Ground, symbols: int) -> None:
        super().__init__(daemon=True)
        self.symbols = symbols
        self.sent = 0
        self.sent_at: dict[int, float] = {}
        """When the ticks of a moment (ms) were sent."""
        self._producer = ground.producer()
        self._stopping = threading.Event()

    def run(self) -> None:
        walk = random_walk(seed=7, symbols=self.symbols, ticks=self.symbols * 3_000)
        symbol_names = names(self.symbols)
        step, due = 0, time.time()
        while not self._stopping.is_set():
            moment = int(due * 1_000) // STEP_MS * STEP_MS
            (text,) = timestamp_texts(np.array([moment]))
            self.sent_at[moment] = time.time()
            for symbol, cents in enumerate(walk.cents[step % len(walk.cents)].tolist()):
                name = symbol_names[symbol]
                value = value_of(name, cents, text)
                self._producer.produce(TICKS_TOPIC, value, name.encode(), partition=symbol % kafka.PARTITIONS)
            self.sent += self.symbols
            self._producer.poll(0)
            step += 1
            due += STEP_MS / 1_000
            # One that is behind sends at once, with the timestamp of the moment that was due.
            time.sleep(max(0.0, due - time.time()))
        self._producer.flush(5)

    def stop(self) -> None:
        """Send no more; returns when it has ended."""
        self._stopping.set()
        if self.is_alive():
            self.join()


class _Reader(threading.Thread):
    """Reads results as soon as they are committed, and notes how late they are."""

    def __init__(self, ground: Ground, topic: str, sender: _Sender) -> None:
        super().__init__(daemon=True)
        self.results = 0
        self.delays: list[float] = []
        self._sender = sender
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": ground.bootstrap,
                "group.id": "bench-live",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
            }
        )
        self._places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(kafka.PARTITIONS)]

    def run(self) -> None:
        self._consumer.assign(self._places)
        while not self._stopping.is_set():
            messages = self._consumer.consume(5_000, timeout=0.1)
            now = time.time()
            for message in messages:
                value = message.value()
                if message.error() is None and value is not None:
                    self.results += 1
                    moment = _moment(value)
                    sent_at = None if moment is None else self._sender.sent_at.get(moment)
                    if sent_at is not None:
                        self.delays.append(now - sent_at - LATENESS_SECONDS)
        self._consumer.close()

    def forget(self) -> None:
        """Begin anew: what comes from now on counts."""
        self.delays = []

    def stop(self) -> None:
        """Read no more; returns when it has ended."""
        self._stopping.set()
        if self.is_alive():
            self.join()


def _moment(value: bytes) -> int | None:
    """The timestamp of a result in ms."""
    text = value[_STAMP].decode() if value.startswith(b'{"timestamp":"') else str(json.loads(value).get("timestamp"))
    return parse_timestamp(text)
