"""The heartbeat of a stream job: a small JSON file that tells others how it is."""

from __future__ import annotations

import datetime
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from tickhouse.contract.arrays import timestamp_texts
from tickhouse.contract.topology import COUNTS

_JUMP_SECONDS = 0.5


def _now() -> str:
    return _text(datetime.datetime.fromtimestamp(time.time(), datetime.UTC))


def _text(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Heartbeat:
    """What a job knows of itself, written by `beat`. Safe to use from several threads."""

    def __init__(self, path: Path, job: str, trigger: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._began_after: dict[str, int] = {}
        """By query: the last micro-batch that was done when this process began."""
        self._reported: dict[str, tuple[int, bool, str] | None] = {}
        """By query: which micro-batch was reported last, whether it was carried out, and when it began."""
        self._waited: dict[int, int] = {}
        """By micro-batch of the job's own query: milliseconds."""
        self._began = time.monotonic()
        self._ahead = time.time() - self._began
        """Of the wall clock before the monotonic one, in seconds, when it was looked at last."""
        earlier = self._earlier()
        self._content: dict[str, Any] = {
            "job": job,
            "pid": os.getpid(),
            "state": "starting",
            "error": None,
            "retry": True,
            "trigger": trigger,
            **{name: earlier.get(name, 0) for name in COUNTS},
            "last_batch_ms": earlier.get("last_batch_ms"),
            "last_event_time": earlier.get("last_event_time"),
            "queries": {},
            "foreign": earlier.get("foreign", {}),
        }

    def _earlier(self) -> dict[str, Any]:
        """The last heartbeat of an earlier process: counts are cumulative over all of them."""
        try:
            content = json.loads(self._path.read_text())
        except (OSError, ValueError):
            # The first start, or a file cut short by a full disk: the counts come back with the first micro-batch.
            return {}
        return content if isinstance(content, dict) else {}

    def update(self, **fields: Any) -> None:
        """Set fields of the heartbeat."""
        with self._lock:
            self._content.update(fields)

    def results(self, counts: dict[str, int], event_time: int | None) -> None:
        """Note the cumulative counts after a micro-batch and its largest event time in milliseconds, if any."""
        with self._lock:
            self._content.update(counts)
            if event_time is not None:
                (text,) = timestamp_texts(np.array([event_time]))
                # RFC 3339 texts of one form sort as their times do.
                self._content["last_event_time"] = max(self._content["last_event_time"] or "", text)

    def foreign(self, table: str, messages: int) -> None:
        """Note that so many further messages on the topic that a table is the copy of were no results."""
        with self._lock:
            known = self._content["foreign"].get(table, {"messages": 0})
            found = {"messages": known["messages"] + messages, "last_at": _now()}
            self._content["foreign"] = {**self._content["foreign"], table: found}

    def waited(self, batch: int, milliseconds: int) -> None:
        """Note that the job's micro-batch, when all was done, waited for so long before it ended."""
        with self._lock:
            self._waited[batch] = milliseconds

    def got_through(self, query: str) -> None:
        """Note that a micro-batch that is not done yet has got on."""
        with self._lock:
            if query in self._content["queries"]:
                self._content["queries"][query]["last_progress_at"] = _now()

    def resume(self, query: str, batch: int | None, offsets: dict[str, dict[str, int]]) -> None:
        """Note where a query goes on: its last committed micro-batch, None before the first, and the next offsets."""
        with self._lock:
            self._began_after[query] = -1 if batch is None else batch
            self._content["queries"][query] = {
                "batch_id": batch,
                "offsets": offsets,
                "last_progress_at": _now(),
                "got_on": False,
                "idle": False,
            }

    def progress(self, query: str, progress: dict[str, Any] | None, idle: bool) -> None:
        """Note how far a query has got.

        `progress`: Spark's report of its last micro-batch, None before the first, or of a look, every ten seconds, that
        found nothing to do; `idle`: whether no micro-batch is under way. What the file says of it: `last_progress_at`,
        when a report was new (a query that waits for its trigger for ever reports nothing), `got_on`, whether a
        micro-batch has been done since the process began, and `idle`, whether it has found nothing to do.
        """
        with self._lock:
            entry = self._content["queries"].setdefault(
                query, {"batch_id": None, "offsets": {}, "got_on": False, "idle": False}
            )
            entry["idle"] = idle and progress is not None
            # A look that found nothing to do is reported with the number of the micro-batch that is to come.
            executed = progress is not None and "addBatch" in progress["durationMs"]
            report = None if progress is None else (progress["batchId"], executed, progress["timestamp"])
            if progress is None or report == self._reported.get(query):
                return
            entry["last_progress_at"] = _now()
            self._reported[query] = report
            done = progress["batchId"] if executed else progress["batchId"] - 1
            entry["batch_id"] = done if done >= 0 else None
            entry["got_on"] = entry["got_on"] or done > self._began_after.get(query, -1)
            for source in progress["sources"]:
                entry["offsets"] = {**entry["offsets"], **(source["endOffset"] or {})}
            if query == self._content["job"] and executed:
                waited = self._waited.get(progress["batchId"], 0)
                self._waited = {batch: time for batch, time in self._waited.items() if batch > progress["batchId"]}
                self._content["last_batch_ms"] = progress["durationMs"].get("triggerExecution", 0) - waited

    def beat(self) -> None:
        """Write the file, whole or not at all."""
        with self._lock:
            self._follow_the_clock()
            # Ages count by the monotonic clock: the other one may be set, and goes on while a machine sleeps.
            monotonic = time.monotonic()
            clocks = {"written_at": _now(), "monotonic": monotonic, "running_seconds": monotonic - self._began}
            text = json.dumps({**self._content, **clocks})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".json.partial")
        temporary.write_text(text)
        temporary.replace(self._path)

    def _follow_the_clock(self) -> None:
        """State what has been noted by the wall clock as it is now, if that was set or the machine has slept."""
        ahead = time.time() - time.monotonic()
        jump, self._ahead = datetime.timedelta(seconds=ahead - self._ahead), ahead
        if abs(jump.total_seconds()) < _JUMP_SECONDS:
            return
        for query in self._content["queries"].values():
            if "last_progress_at" in query:
                query["last_progress_at"] = _text(datetime.datetime.fromisoformat(query["last_progress_at"]) + jump)
