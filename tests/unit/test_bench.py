"""The comparison's own arithmetic: ticks, rates, correctness and what is shown of them. No broker, no peers."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rich.console import Console

from bench import correct, document, plots, table, usage
from bench.curves import state_of_hour
from bench.drain import ticks_in_log
from bench.limits import SymbolKernel, blocks
from bench.peer_envs import PEERS
from bench.rates import Seen, best_correct, is_correct, ratio, rounded, summary, sustained
from bench.systems import CONTESTANTS, MOVING, PEER_NAMES, PROJECT, USUAL
from bench.ticks import START_MS, final_passages, final_statistics, payloads, random_walk
from orchestration.local import processes
from tests.reference.ideal import snapshot
from tests.reference.model import evaluate, keyed
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, ZSCORE_TOPIC
from tickhouse.contract.validation import Tick, accept

_LATER_MS = START_MS + 10**9


def test_processes_that_have_ended_still_count(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)"
    # Spark's daemon of Python workers has the system forget those that have ended.
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {burn!r}])\n"
        "time.sleep(60)"
    )
    process = processes.start(tmp_path, "leader", [sys.executable, "-c", script], os.environ)
    meter = usage.CpuMeter([process])
    try:
        while (seen := meter.seconds()) < 0.3:
            time.sleep(0.05)
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        child.wait(10)
        assert meter.seconds() >= seen
    finally:
        processes.stop(process, 1)
    assert meter.seconds() >= seen, "nor is it forgotten when all have ended"


def test_ticks_are_what_the_contract_accepts() -> None:
    walk = random_walk(3, 7, 700)
    assert walk.ticks == 700
    assert (walk.cents > 0).all()
    made = list(payloads(walk))
    assert len(made) == 700
    first = accept(made[0].key, made[0].value, START_MS)
    assert first == Tick(walk.names[0], int(walk.units()[0, 0]), START_MS)
    assert {payload.key.decode() for payload in made} == set(walk.names)
    again = random_walk(3, 7, 700)
    assert np.array_equal(walk.cents, again.cents)
    assert not np.array_equal(walk.cents, random_walk(4, 7, 700).cents)


def test_final_ticks_are_those_of_the_reference() -> None:
    walk = random_walk(1, 2, 1_000)
    messages = [keyed(0, offset, START_MS, payload.value) for offset, payload in enumerate(payloads(walk))]
    expected = evaluate(messages)
    assert final_statistics(walk, 10_000) == len(expected.stats)
    assert final_passages(walk, 10_000, 20_000) <= min(len(expected.higher), len(expected.lower))


def test_a_rate_is_taken_between_arrivals_of_results() -> None:
    seen = [
        Seen(0, 0),
        Seen(5, 0),
        Seen(6, 100),
        Seen(7, 100),
        Seen(8, 300, 2.0),
        Seen(9, 300),
        Seen(10, 500, 5.0),
        Seen(20, 500),
    ]
    rate = sustained(seen, 0)
    assert rate is not None
    assert (rate.per_second, rate.ticks, rate.seconds) == (100.0, 400, 4)
    warm = sustained(seen, 1.5)
    assert warm is not None
    assert (warm.per_second, warm.ticks, warm.cpu_seconds) == (100.0, 200, 3.0)
    assert warm.cpu_seconds_per_million == 15_000
    all_in_the_warm_up = sustained(seen, 60)
    assert all_in_the_warm_up == rate
    assert sustained(seen[:4], 0) is None


def test_a_count_that_falls_and_rises_again_is_no_arrival_of_results() -> None:
    seen = [Seen(0.0, 0), Seen(1.0, 5), Seen(2.0, 0), Seen(3.0, 5)]
    assert sustained(seen, 0.0) is None
    rate = sustained([*seen, Seen(5.0, 25)], 0.0)
    assert rate is not None
    assert (rate.ticks, rate.seconds) == (20, 4.0)


def test_delays_in_a_few_numbers() -> None:
    assert summary([]) == {"results": 0}
    told = summary([1.0] * 98 + [2.0, 5.0])
    assert told["p50"] == 1.0
    assert told["max"] == 5.0
    assert 1.0 < told["p99"] < 5.0


def test_numbers_are_rounded_to_significant_digits() -> None:
    assert rounded(12_345.6, 3) == 12_300
    assert rounded(0.0012345) == 0.00123
    assert rounded(0.0) == 0.0
    assert rounded(None) is None
    assert ratio(3.0, None) is None
    assert ratio(3.0, 2.0) == 1.5


def test_the_share_of_right_results_counts_each_kind_of_fault() -> None:
    lines = correct.lines(5, 600)
    messages = [keyed(0, offset, _LATER_MS, value) for offset, (_, _, value) in enumerate(lines)]
    expected = evaluate(messages)
    perfect = snapshot(messages, expected)
    topics = (MOVING_TOPIC, ZSCORE_TOPIC, HIGHER_TOPIC, LOWER_TOPIC)
    judged = correct.judge(perfect, topics)
    assert judged["share"] == 1.0
    assert is_correct({"correctness": judged})

    records = perfect.topics[MOVING_TOPIC]
    wrong = records[0]._replace(value=(records[0].value or b"").replace(b'"count": 1', b'"count": 2', 1))
    perfect.topics[MOVING_TOPIC] = [wrong, *records[2:], records[5]]
    judged = correct.judge(perfect, (MOVING_TOPIC,))
    owed = len(expected.stats)
    assert judged["share"] == pytest.approx((owed - 2) / owed)
    assert (judged["wrong"], judged["missing"], judged["duplicate"]) == (1, 1, 1)
    assert not is_correct({"correctness": judged})
    assert correct.judge(perfect, (ZSCORE_TOPIC,))["share"] == 1.0


def test_the_input_of_the_check_has_all_that_makes_it_hard() -> None:
    expected = evaluate(
        keyed(0, offset, _LATER_MS, value) for offset, (_, _, value) in enumerate(correct.lines(1, 2_000))
    )
    assert expected.late > 10
    assert expected.duplicates > 10
    assert not expected.rejects


def test_the_kernels_that_are_timed_give_the_right_results() -> None:
    walk = random_walk(1, 1, 3_000)
    symbol = SymbolKernel()
    counts = []
    for timestamps, units in blocks(walk):
        released, statistics, scores, _ = symbol.take(timestamps, np.ascontiguousarray(units[:, 0]))
        assert len(released.timestamps) == final_statistics(walk, 10_000) == scores.shape[1]
        counts.append(statistics.counts)
    assert counts[0][0].max() == 300
    assert 0 < symbol.state_bytes < state_of_hour(1) < 800_000


def test_progress_is_read_from_a_log(tmp_path: Path) -> None:
    log = tmp_path / "peer.log"
    assert ticks_in_log(log) == 0
    log.write_text('starting\n{"ticks":100}\nwarning\n{"ticks":2500}\nmore\n')
    assert ticks_in_log(log) == 2_500


def _results() -> dict[str, Any]:
    right = {"share": 1.0, "owed": 10, "missing": 0, "wrong": 0, "unexpected": 0, "duplicate": 0, "examples": {}}
    live = {"delay": {"results": 100, "p50": 0.5, "p99": 1.0, "max": 2.0}, "cores": 0.5, "peak_megabytes": 500}

    def of(rate: float, correctness: dict[str, Any]) -> dict[str, Any]:
        drain = {"rate": rate, "cpu_seconds_per_million": 20, "peak_megabytes": 900}
        return {"correctness": correctness, "drain": {"8": drain, "100": drain}, "live": live}

    wrong = {**right, "share": 0.5, "missing": 5, "examples": {"missing": "X|2025"}}
    windows = [{"hours": 1, "backlog_microseconds": 3.0, "live_microseconds": 20.0, "state_bytes": 600_000}]
    return {
        "made": "2026-01-01T00:00:00+00:00",
        "quick": True,
        "minutes": 3.0,
        "machine": {"cores": 2, "memory_gigabytes": 25, "python": "3.11", "load_before": 0.1},
        "base": "8",
        "scenarios": ["8", "100"],
        "limits": {"kernels in memory": 300_000.0},
        "curves": {"windows": windows, "symbols": [{"symbols": 8, "microseconds": 3.1}]},
        "contestants": {
            PROJECT: of(30_000, right),
            MOVING: of(60_000, right),
            "kafka_streams": of(20_000, right),
            "quixstreams": of(5_000, right),
            "flink": of(90_000, wrong),
            "pathway": {"unavailable": "no wheel"},
            "bytewax": {"correctness": right, "drain": {"8": {"failure": "ended"}}},
        },
    }


def test_ratios_are_to_the_best_peer_that_is_right() -> None:
    results = _results()
    assert best_correct(results["contestants"], PEER_NAMES, "8") == "kafka_streams"
    line = table.last_line(results)
    assert "Kafka Streams" in line
    assert "three streams at once 1.50" in line
    assert "`moving` alone 3.00" in line
    assert "median delay 1.00" in line
    results["contestants"] = {PROJECT: results["contestants"][PROJECT]}
    assert "no peer" in table.last_line(results)


def test_the_table_ends_with_the_ratios_and_tells_what_failed() -> None:
    console = Console(record=True, width=200)
    table.show(_results(), console)
    text = console.export_text()
    assert text.strip().splitlines()[-1].startswith("Ratios at 8 symbols")
    assert "no wheel" in text
    assert "50.0 %" in text


def test_what_only_this_project_is_measured_for_is_told() -> None:
    results = _results()
    assert table.further(results) == []
    few = {"correctness": {"share": 0.001}, "drain": {"8": {"rate": 10_000}}}
    whole = {**results["contestants"][PROJECT]["live"], "symbols": 2_000, "ticks_per_second": 20_000, "kept_up": False}
    results["contestants"][USUAL] = few
    results["contestants"][PROJECT]["live_2000"] = whole
    results["recovery"] = [{"hours": 0.5, "seconds": 5.12}, {"hours": 4.0, "seconds": 5.5}]
    results["load"] = {"rows": 1, "documents_per_second": 90_000.0, "server_documents_per_second": 180_000.0}
    usual, live, killed, load = table.further(results)
    assert killed.endswith("5.12 s after 0.5 h of ticks, 5.5 s after 4 h of ticks.")
    assert "3,000 times" in usual
    assert "2,000 symbols, 20,000 ticks/s: did not keep up, delay 0.50 / 1.00 / 2.00 s" in live
    assert "90,000 documents/s" in load


def test_pictures_are_drawn(tmp_path: Path) -> None:
    drawn = plots.draw(_results(), tmp_path)
    assert [path.name for path in drawn] == ["throughput.png", "delay.png", "windows.png", "symbols.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    only_drained = _results()
    for contestant in only_drained["contestants"].values():
        contestant.pop("live", None)
    assert [path.name for path in plots.draw(only_drained, tmp_path / "drained")][:2] == [
        "throughput.png",
        "windows.png",
    ]


def test_the_page_has_a_place_for_all_figures() -> None:
    page = document.PAGE.read_text(encoding="utf-8")
    filled = document.fill(page, _results())
    assert "1.50" in filled
    assert filled.count("<!-- figures:") == 7
    assert document.fill(filled, _results()) == filled
    with pytest.raises(KeyError):
        document.fill("<!-- figures: unknown -->\n<!-- end -->", _results())


def test_every_peer_has_its_program_and_no_lock_file_names_a_host() -> None:
    for name in PEER_NAMES:
        assert CONTESTANTS[name].title
        assert any((PEERS / name).glob("*.py")) or any((PEERS / name).glob("*.java"))
    for lock in PEERS.glob("*/requirements.txt"):
        assert "://" not in lock.read_text()
        assert "--hash=sha256:" in lock.read_text()


def test_committed_results_can_be_shown() -> None:
    path = document.PAGE.parents[1] / "bench" / "results" / "latest.json"
    if path.exists():
        table.show(json.loads(path.read_text()), Console(record=True, width=200, quiet=True))
