"""The heartbeat of a stream job: a small JSON file that tells others how it is.

Belongs here: collecting progress and writing the file. Does not belong here: judging it (the supervisor's part).
"""

from __future__ import annotations

import datetime
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from spark_jobs.contract import timestamp_texts
from spark_jobs.jobs import COUNTS


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Heartbeat:
    """What a job knows of itself, written by `beat`. Safe to use from several threads."""

    def __init__(self, path: Path, job: str, trigger: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        earlier = self._earlier()
        self._content: dict[str, Any] = {
            "job": job,
            "pid": os.getpid(),
            "state": "starting",
            "error": None,
            "trigger": trigger,
            **{name: earlier.get(name, 0) for name in COUNTS},
            "last_batch_ms": earlier.get("last_batch_ms"),
            "last_event_time": earlier.get("last_event_time"),
            "queries": {},
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

    def progress(self, query: str, batch: int, offsets: dict[str, dict[str, int]] | None) -> None:
        """Note how far a query has got; `offsets` None leaves them as they were."""
        with self._lock:
            entry = self._content["queries"].setdefault(query, {"batch_id": batch, "offsets": {}})
            entry["batch_id"] = batch
            entry["last_progress_at"] = _now()
            if offsets is not None:
                entry["offsets"] = offsets

    def beat(self) -> None:
        """Write the file, whole or not at all."""
        with self._lock:
            text = json.dumps({**self._content, "written_at": _now()})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".json.partial")
        temporary.write_text(text)
        temporary.replace(self._path)


class ProgressListener(StreamingQueryListener):
    """Carries Spark's progress events to the heartbeat."""

    def __init__(self, heartbeat: Heartbeat, compute_query: str) -> None:
        self._heartbeat = heartbeat
        self._compute_query = compute_query
        self._names: dict[str, tuple[str, int]] = {}

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        """Called by Spark."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        """Called by Spark after each micro-batch."""
        progress = event.progress
        name = progress.name or ""
        self._names[str(progress.id)] = (name, progress.batchId)
        offsets: dict[str, dict[str, int]] = {}
        for source in progress.sources:
            offsets |= json.loads(source.endOffset) if source.endOffset else {}
        self._heartbeat.progress(name, progress.batchId, offsets or None)
        if name == self._compute_query and progress.numInputRows:
            self._heartbeat.update(last_batch_ms=progress.durationMs.get("triggerExecution"))

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        """Called by Spark now and then while there is nothing to do."""
        if str(event.id) in self._names:
            name, batch = self._names[str(event.id)]
            self._heartbeat.progress(name, batch, None)

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        """Called by Spark; the job's own loop notices an ended query and says why."""
