"""Soaks the four streams in ticks mixed with garbage, at a steady rate, against a broker of its own.

    python -m bench.soak --seconds 600 --rate 2000 --garbage 0.5 [--symbols 10] [--seed 1] [--json FILE]

The ticks are those of the reference's adversarial streams (out of order, late, repeated, in all spellings; each symbol
10 Hz in event time), the garbage what its fuzz makes and it rejects: all kinds, up to a megabyte. Every few seconds a
line says how far each stream is behind and what its processes use. At the end every topic and table is compared with
the reference. Exit code 0 = nothing is missing, twice or wrong, and the streams kept pace: in the last quarter of the
time none was further behind, at its best, than in the quarter before, but for what comes between two looks. (A quarter
must be longer than the time from one commit to Delta to the next: give it 120 s or more.)

`--explosion N` sends N ticks of N different symbols before all else, to see what a symbol costs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from confluent_kafka import Producer

from bench.observe import sample
from orchestration.local import broker as kafka
from orchestration.local import processes
from orchestration.local.artifacts import kafka_jars, spark_jars
from orchestration.local.java import find_java
from orchestration.local.ports import free_port
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.lag import Topics, archive_lag, stream_lag
from tests.reference.acceptance import Rejected, Tick, accept, milliseconds_of, read
from tests.reference.compare import compare_everything
from tests.reference.fuzz import fuzz
from tests.reference.spelling import canonical
from tests.reference.stream import Shares, disturb, random_walks
from tickhouse.contract.topology import JOBS, TOPICS
from tickhouse.settings import path_argument

_LOOK_SECONDS = 5.0
_GARBAGE_KINDS = 20_000
_ANY_TIME = 2**43
_LARGEST_MESSAGE = 1_000_000
Payload = tuple[bytes | None, bytes | None]
"""Key and value."""


@dataclass
class Looks:
    """What was seen while the messages went out: one row for each look."""

    at: list[float] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    behind: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in JOBS})
    cores: dict[str, list[float]] = field(default_factory=dict)
    megabytes: dict[str, list[float]] = field(default_factory=dict)

    def growth(self, name: str) -> int:
        """By how many messages a stream is further behind at its best in the last quarter than in the one before.

        At its best, because each micro-batch takes away what has gathered since the one before.
        """
        half, quarter = len(self.at) // 2, len(self.at) * 3 // 4
        return min(self.behind[name][quarter:]) - min(self.behind[name][half:quarter] or [0])


class Stack:
    """A broker and the four streams as processes, in a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._tools, self._java = OrchestrationSettings.read().tools, find_java(os.environ)
        self._node = kafka.Broker(home / "kafka", free_port(), free_port())
        self.bootstrap = self._node.bootstrap

    def start(self) -> None:
        self._node.prepare(self._java, kafka_jars(self._tools))
        command = self._node.command(self._java, kafka_jars(self._tools))
        broker = processes.start(self.home, "kafka", command, os.environ)
        kafka.wait_ready(self.bootstrap, lambda: processes.alive(broker), 60)
        kafka.create_topics(self.bootstrap, TOPICS)
        environment = {
            **os.environ,
            "JAVA_HOME": str(self._java.path),
            "TICKHOUSE_HOME": str(self.home),
            "TICKHOUSE_JARS": str(spark_jars(self._tools)),
            "TICKHOUSE_KAFKA_BOOTSTRAP": self.bootstrap,
        }
        streams = [
            processes.start(self.home, name, [sys.executable, "-m", "spark_jobs", name], environment) for name in JOBS
        ]
        deadline = time.monotonic() + 120
        while any(self.heartbeat(name).get("state") != "running" for name in JOBS):
            if time.monotonic() > deadline or not all(processes.alive(stream) for stream in streams):
                raise RuntimeError(f"the streams have not started: see the logs in {self.home}")
            time.sleep(0.5)

    def heartbeat(self, name: str) -> dict[str, Any]:
        return processes.read_heartbeat(self.home, name) or {}

    def stop(self) -> None:
        for name in (*JOBS, "kafka"):
            process = processes.recorded(self.home, name)
            if process is not None:
                processes.stop(process, 15)


def ticks(seed: int, symbols: int, count: int) -> list[Payload]:
    """Lines of an adversarial stream without garbage, each with its symbol as key."""
    names = [f"SOAK{number:03}" for number in range(symbols)]
    lines = disturb(random_walks(seed, names, count), seed, Shares(malformed=0), lag=0)
    return [(read(line.value).symbol.encode(), line.value) for line in lines]


def old_ticks() -> Iterator[Payload]:
    """Ticks of the epoch, a leap day and the turn of a century, which every store must keep as well."""
    for number, begin in enumerate(("1970-01-01T00:00:00Z", "1972-02-29T23:59:30Z", "1999-12-31T23:59:30Z")):
        symbol = f"OLD{number}"
        for position in range(600):
            tick = Tick(symbol, milliseconds_of(begin) + 100 * position, 10**8 * (1 + position * 7 % 13))
            yield symbol.encode(), canonical(tick)


def garbage(seed: int, keys: list[bytes]) -> list[Payload]:
    """Messages of every kind that are not ticks at any time, many of them under the keys of symbols."""
    random = Random(f"garbage {seed}")
    found: list[Payload] = []
    for fuzzed in fuzz(seed, 2 * _GARBAGE_KINDS):
        key = random.choice((None, fuzzed.key, random.choice(keys)))
        try:
            accept(key, fuzzed.value, _ANY_TIME)
        except Rejected:
            if len(fuzzed.value or b"") < _LARGEST_MESSAGE:
                found.append((key, fuzzed.value))
    return found


def mixed(good: list[Payload], bad: list[Payload], share: float, seed: int) -> Iterator[Payload]:
    """The ticks in their order with `share` garbage between them."""
    random = Random(f"mix {seed}")
    rubbish = cycle(bad)
    for payload in good:
        while random.random() < share:
            yield next(rubbish)
        yield payload


def explosion(count: int) -> Iterator[Payload]:
    """One tick each of `count` symbols."""
    now = milliseconds_of("2025-05-08T12:00:00Z")
    for number in range(count):
        symbol = f"X{number}"
        yield symbol.encode(), canonical(Tick(symbol, now, 10**8 + number))


def feed(stack: Stack, messages: Iterator[Payload], rate: float, looks: Looks) -> int:
    """Send at a steady rate, looking on; returns how many."""
    producer = Producer(
        {
            "bootstrap.servers": stack.bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 20,
            "message.max.bytes": 1_048_588,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    topics = Topics(stack.bootstrap)
    began = time.monotonic()
    next_look, sent = 0.0, 0
    usage = sample(stack.home), began
    for key, value in messages:
        producer.produce("btc-price", value, key)
        sent += 1
        ahead = began + sent / rate - time.monotonic()
        if ahead > 0.01:
            producer.poll(0)
            time.sleep(ahead)
        if time.monotonic() - began >= next_look:
            next_look += _LOOK_SECONDS
            usage = _look(stack, topics, looks, sent, began, usage)
    producer.flush()
    _look(stack, topics, looks, sent, began, usage)
    return sent


Usage = tuple[dict[str, tuple[float, float]], float]


def _look(stack: Stack, topics: Topics, looks: Looks, sent: int, began: float, earlier: Usage) -> Usage:
    now = time.monotonic()
    ends = topics.end_offsets(TOPICS)
    looks.at.append(now - began)
    looks.sent.append(sent)
    parts = []
    usage = sample(stack.home)
    for name, (cpu, megabytes) in usage.items():
        cores = (cpu - earlier[0].get(name, (cpu, 0.0))[0]) / max(now - earlier[1], 0.001)
        looks.cores.setdefault(name, []).append(cores)
        looks.megabytes.setdefault(name, []).append(megabytes)
        behind = ""
        if name in JOBS:
            looks.behind[name].append(stream_lag(JOBS[name], stack.heartbeat(name), ends) or 0)
            behind = f" behind {looks.behind[name][-1]}"
        parts.append(f"{name}{behind} {cores:.2f} cores {megabytes:.0f} MB")
    print(f"{now - began:6.0f} s, {sent} sent: " + "; ".join(parts), flush=True)
    return usage, now


def catch_up(stack: Stack, seconds: float) -> float:
    """Wait until nothing waits for a stream or an archive; returns how long that took."""
    topics = Topics(stack.bootstrap)
    began = time.monotonic()
    while True:
        # In this order: what is published in between then counts as waiting.
        beats = {name: stack.heartbeat(name) for name in JOBS}
        ends = topics.end_offsets(TOPICS)
        waiting = {name: stream_lag(spec, beats[name], ends) for name, spec in JOBS.items()}
        waiting |= {
            f"{name}'s archive": archive_lag(spec, beats[name], ends) for name, spec in JOBS.items() if spec.archives
        }
        if not any(value is None or value > 0 for value in waiting.values()):
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"after {seconds:.0f} s messages still wait: {waiting}")
        time.sleep(1)


def main() -> int:
    """Run, then print the figures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=2_000, help="messages per second, garbage included")
    parser.add_argument("--garbage", type=float, default=0.5, help="share of the messages that are not ticks")
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--explosion", type=int, default=0, help="send one tick each of so many symbols first")
    parser.add_argument("--home", type=path_argument, help="where to keep everything (default: a temporary folder)")
    parser.add_argument("--json", type=path_argument, help="also write the figures there")
    options = parser.parse_args()
    print(f"seed {options.seed}: making the messages", flush=True)
    good = ticks(options.seed, options.symbols, round(options.seconds * options.rate * (1 - options.garbage)))
    good += old_ticks()
    bad = garbage(options.seed, sorted({key for key, _ in good if key is not None}))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        stack = Stack((options.home or Path(folder)).absolute())
        try:
            stack.start()
            if options.explosion:
                before = Looks()
                sent = feed(stack, explosion(options.explosion), 20_000, before)
                print(f"{sent} symbols taken in after {catch_up(stack, 900):.0f} s more", flush=True)
            looks = Looks()
            sent = feed(stack, mixed(good, bad, options.garbage, options.seed), options.rate, looks)
            late = catch_up(stack, 600)
            print(f"caught up {late:.0f} s after the last message; comparing", flush=True)
            counts = {name: stack.heartbeat(name) for name in JOBS}
            for name in JOBS:
                process = processes.recorded(stack.home, name)
                if process is not None:
                    processes.stop(process, 30)
            report = compare_everything(stack.bootstrap, str(stack.home / "lakehouse"), None, wait=1)
        finally:
            stack.stop()
    print(report.text())
    figures = _figures(looks, sent, counts, late, options.rate)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures | {"looks": vars(looks)}, indent=1))
    return 0 if report.ok and figures["kept_pace"] else 1


def _figures(looks: Looks, sent: int, counts: dict[str, dict[str, Any]], late: float, rate: float) -> dict[str, Any]:
    moving = counts["moving"]
    return {
        "messages": sent,
        "seconds": round(looks.at[-1], 1),
        "rate": round(sent / looks.at[-1]),
        "rejects": moving["rejects"],
        "late": moving["late"],
        "duplicates": moving["duplicates"],
        "results": moving["output_rows"],
        "caught_up_after_seconds": round(late, 1),
        "most_behind": {name: max(values) for name, values in looks.behind.items()},
        "growth": {name: looks.growth(name) for name in JOBS},
        "kept_pace": all(looks.growth(name) < _LOOK_SECONDS * rate for name in JOBS),
        "cores": {name: round(float(np.mean(values[1:])), 2) for name, values in looks.cores.items()},
        "megabytes": {
            name: {"first": round(values[0]), "half": round(values[len(values) // 2]), "last": round(values[-1])}
            for name, values in looks.megabytes.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
