"""Watches a running stack: delay from tick to readable z-score, and CPU and memory of every process.

    python -m bench.observe --home .tickhouse --seconds 600 [--json FILE]

Delay is the time at which a `read_committed` consumer gets the z-score, minus the tick's timestamp, minus the lateness
for which every result has to wait. CPU is in cores over the time watched; memory is the proportional set size,
in which pages shared by forked workers count once, at the start, the end and the largest seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from confluent_kafka import Consumer

from bench.rates import summary
from orchestration.local import processes
from orchestration.settings import OrchestrationSettings
from tickhouse.contract.names import ZSCORE_TOPIC
from tickhouse.contract.validation import parse_timestamp
from tickhouse.kafka.access import librdkafka_security
from tickhouse.settings import path_argument

_SAMPLE_SECONDS = 10.0


def main() -> int:
    """Watch, then print a table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.observe", description=__doc__)
    parser.add_argument("--home", type=path_argument, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=path_argument, help="also write the figures there")
    options = parser.parse_args()
    settings = OrchestrationSettings.read(home=options.home)
    stop = threading.Event()
    delays: list[float] = []
    reader = threading.Thread(target=_read_delays, args=(settings, delays, stop))
    reader.start()
    usage = _watch(settings.home, options.seconds)
    stop.set()
    reader.join()
    figures: dict[str, Any] = {"seconds": options.seconds, "delay": summary(delays), "processes": usage}
    print(_text(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


def _read_delays(settings: OrchestrationSettings, delays: list[float], stop: threading.Event) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            **librdkafka_security(settings),
            "group.id": "bench-observe",
            "isolation.level": "read_committed",
            "auto.offset.reset": "latest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.subscribe([ZSCORE_TOPIC])
    try:
        while not stop.is_set():
            messages = consumer.consume(1_000, timeout=0.2)
            now = time.time()
            for message in messages:
                value = message.value()
                if message.error() is None and value is not None:
                    timestamp = parse_timestamp(json.loads(value)["timestamp"])
                    assert timestamp is not None
                    delays.append(now - timestamp / 1_000 - settings.lateness_seconds)
    finally:
        consumer.close()


def _watch(home: Path, seconds: float) -> dict[str, dict[str, float]]:
    began = time.monotonic()
    first = sample(home)
    last, largest = first, {name: memory for name, (_, memory) in first.items()}
    while time.monotonic() - began < seconds:
        time.sleep(min(_SAMPLE_SECONDS, seconds))
        last = sample(home)
        for name, (_, memory) in last.items():
            largest[name] = max(largest.get(name, 0.0), memory)
    elapsed = time.monotonic() - began
    return {
        name: {
            "cores": (cpu - first.get(name, (0.0, 0.0))[0]) / elapsed,
            "megabytes_first": first.get(name, (0.0, 0.0))[1],
            "megabytes_last": memory,
            "megabytes_largest": largest[name],
        }
        for name, (cpu, memory) in last.items()
    }


def sample(home: Path) -> dict[str, tuple[float, float]]:
    """CPU seconds so far and megabytes now, for each service and stream with all its children."""
    samples = {}
    for name in processes.recorded_names(home):
        process = processes.recorded(home, name)
        if process is None or not processes.alive(process):
            continue
        cpu = memory = 0.0
        leader = psutil.Process(process.pid)
        for member in [leader, *leader.children(recursive=True)]:
            try:
                times = member.cpu_times()
                # What ended children used counts, too: runs are such.
                cpu += times.user + times.system + times.children_user + times.children_system
                memory += member.memory_full_info().pss / 1e6
            except psutil.NoSuchProcess:
                continue
        samples[name] = (cpu, memory)
    return samples


def _text(figures: dict[str, Any]) -> str:
    lines = [f"{'process':<12} {'cores':>6} {'MB first':>9} {'MB last':>9} {'MB most':>9}"]
    total = np.zeros(4)
    for name, usage in figures["processes"].items():
        row = [usage["cores"], usage["megabytes_first"], usage["megabytes_last"], usage["megabytes_largest"]]
        total += row
        lines.append(f"{name:<12} {row[0]:>6.2f} {row[1]:>9.0f} {row[2]:>9.0f} {row[3]:>9.0f}")
    lines.append(f"{'all':<12} {total[0]:>6.2f} {total[1]:>9.0f} {total[2]:>9.0f} {total[3]:>9.0f}")
    delay = figures["delay"]
    lines.append(
        "delay beyond the lateness, in s: " + ", ".join(f"{name} {value:.3g}" for name, value in delay.items())
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
