"""What a heartbeat says of a query's progress, from Spark's own reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spark_jobs.heartbeat import Heartbeat


def report(batch: int, executed: bool = True, begun: str = "2026-01-01T00:00:00.000Z") -> dict[str, Any]:
    durations = {"triggerExecution": 5, "addBatch": 3} if executed else {"triggerExecution": 1, "latestOffset": 1}
    sources = [{"endOffset": {"btc-price": {"0": 10 * (batch + executed)}}}]
    return {
        "batchId": batch,
        "timestamp": begun,
        "numInputRows": 10 * executed,
        "durationMs": durations,
        "sources": sources,
    }


def said(path: Path, heartbeat: Heartbeat) -> dict[str, Any]:
    heartbeat.beat()
    entry: dict[str, Any] = json.loads(path.read_text())["queries"]["moving"]
    return entry


def test_getting_on_is_a_micro_batch_done_since_the_process_began(tmp_path: Path) -> None:
    path = tmp_path / "moving.heartbeat.json"
    heartbeat = Heartbeat(path, "moving", "continuous")
    heartbeat.resume("moving", 7, {"btc-price": {"0": 80}})
    assert (said(path, heartbeat)["got_on"], said(path, heartbeat)["idle"]) == (False, False)
    # Before its first look a query waits for nothing yet.
    heartbeat.progress("moving", None, idle=True)
    assert said(path, heartbeat)["idle"] is False
    # A look that found nothing to do bears the number of the micro-batch to come.
    heartbeat.progress("moving", report(8, executed=False), idle=True)
    assert (said(path, heartbeat)["got_on"], said(path, heartbeat)["idle"]) == (False, True)
    # The micro-batch itself, and every look after it.
    heartbeat.progress("moving", report(8), idle=False)
    assert (said(path, heartbeat)["got_on"], said(path, heartbeat)["idle"]) == (True, False)


def test_a_micro_batch_between_two_looks_counts(tmp_path: Path) -> None:
    path = tmp_path / "moving.heartbeat.json"
    heartbeat = Heartbeat(path, "moving", "continuous")
    heartbeat.resume("moving", 7, {})
    heartbeat.progress("moving", report(9, executed=False), idle=True)
    assert said(path, heartbeat)["got_on"] is True
    began_anew = Heartbeat(path, "moving", "continuous")
    began_anew.progress("moving", report(0, executed=False), idle=True)
    assert said(path, began_anew)["got_on"] is False
    began_anew.progress("moving", report(0), idle=True)
    assert said(path, began_anew)["got_on"] is True


def test_the_time_of_a_micro_batch_is_without_what_it_waited_when_all_was_done(tmp_path: Path) -> None:
    path = tmp_path / "moving.heartbeat.json"
    heartbeat = Heartbeat(path, "moving", "continuous")
    times = []
    for batch, waited in ((0, 2), (1, None), (2, 4)):
        if waited is not None:
            heartbeat.waited(batch, waited)
        # The next one waits already when this one's report is read.
        heartbeat.waited(batch + 1, 1)
        heartbeat.progress("moving", report(batch), idle=False)
        heartbeat.beat()
        times.append(json.loads(path.read_text())["last_batch_ms"])
    assert times == [3, 4, 1]


def test_waiting_for_a_trigger_that_does_not_come_is_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "moving.heartbeat.json"
    heartbeat = Heartbeat(path, "moving", "continuous")
    heartbeat.progress("moving", report(3), idle=True)
    heartbeat._content["queries"]["moving"]["last_progress_at"] = "long ago"
    heartbeat.progress("moving", report(3), idle=True)
    assert said(path, heartbeat)["last_progress_at"] == "long ago"
    # Looks that find nothing to do are reported, too.
    heartbeat.progress("moving", report(4, executed=False, begun="2026-01-01T00:00:10.000Z"), idle=True)
    assert said(path, heartbeat)["last_progress_at"] != "long ago"


def test_a_query_that_has_done_nothing_begins_where_retention_has_left_something(tmp_path: Path) -> None:
    path = tmp_path / "moving.heartbeat.json"
    heartbeat = Heartbeat(path, "moving", "continuous")
    heartbeat.resume("moving", None, {"btc-price": {"0": 500}})
    entry = said(path, heartbeat)
    assert (entry["batch_id"], entry["offsets"], entry["got_on"]) == (None, {"btc-price": {"0": 500}}, False)
    heartbeat.progress("moving", report(0), idle=True)
    assert said(path, heartbeat)["got_on"] is True


def test_foreign_messages_are_counted_over_all_processes(tmp_path: Path) -> None:
    path = tmp_path / "trend.heartbeat.json"
    for _ in range(2):
        heartbeat = Heartbeat(path, "trend", "continuous")
        heartbeat.foreign("higher", 2)
        heartbeat.beat()
    found = json.loads(path.read_text())["foreign"]
    assert found["higher"]["messages"] == 4
    assert found["higher"]["last_at"].endswith("Z")
    assert "lower" not in found
