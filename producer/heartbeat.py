"""What the producer has done so far, and telling others: a file once a second, a log line now and then."""

from __future__ import annotations

import datetime
import json
import logging
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

State = Literal["running", "waiting", "ended", "stopped", "failed"]

WRITE_SECONDS = 1.0
LOG_SECONDS = 10.0

_log = logging.getLogger(__name__)


def utc_text(seconds: float) -> str:
    """`2026-01-01T00:00:00.000Z` for seconds since the epoch."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """The text on one line and without control characters: what a server answered may be shown on a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small file so that readers see the old or the new one, never a part. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content), encoding="utf-8")
    unfinished.replace(path)


class Progress:
    """The counters and the state of one run of the producer. Changed by its threads, read by the heartbeat."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.state: State = "waiting"
        self.note: str | None = None
        self.error: str | None = None
        self.sent = 0
        """Messages handed to Kafka's client."""
        self.acknowledged = 0
        """Messages that the broker has confirmed."""
        self.skipped = 0
        """Ticks not sent because their identity was not newer than one already sent."""
        self.missed = 0
        """Polls not made because an earlier one took too long."""
        self.last_timestamp: str | None = None
        self.found: list[str] = []
        """What there was to say of a recording before it was sent."""
        self.delivered: list[str] = []
        """What there was to say of it once it was sent."""
        self._failures: Counter[str] = Counter()
        self._lock = threading.Lock()

    def failure(self, kind: str) -> None:
        """Count one failure of the source."""
        with self._lock:
            self._failures[kind] += 1

    def change(self, state: State, note: str | None = None) -> None:
        """Set state and note, with a log line when the state is another one or a new note appears."""
        note = None if note is None else printable(note)
        with self._lock:
            changed = state != self.state or (note is not None and self.note is None)
            self.state, self.note = state, note
        if changed:
            _log.log(
                logging.WARNING if state == "waiting" else logging.INFO, "%s", f"{state}: {note}" if note else state
            )

    def fail(self, error: str) -> None:
        """Set the state to failed, for the first reason given."""
        error = printable(error)
        with self._lock:
            if self.state == "failed":
                return
            self.state, self.note, self.error = "failed", None, error
        _log.error("failed: %s", error)

    def snapshot(self) -> dict[str, Any]:
        """The heartbeat's content, without the process's own particulars."""
        with self._lock:
            return {
                "source": self.source,
                "state": self.state,
                "error": self.error,
                "sent": self.sent,
                "acknowledged": self.acknowledged,
                "skipped": self.skipped,
                "missed": self.missed,
                "failures": dict(self._failures),
                "last_timestamp": self.last_timestamp,
                "note": self.note,
                "found": self.found,
                "delivered": self.delivered,
            }


class Heartbeat:
    """Writes the progress to a file, atomically, every second until closed, and logs it every ten."""

    def __init__(self, path: Path, progress: Progress) -> None:
        """Write the first one now. Raises OSError."""
        self._path = path
        self._progress = progress
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write()
        self._thread.start()

    def write(self) -> None:
        """Write the file now. Raises OSError."""
        content = {"pid": os.getpid(), "written_at": utc_text(time.time()), **self._progress.snapshot()}
        write_json(self._path, content)

    def close(self) -> None:
        """Stop, write the last state, and log the counts once more."""
        self._closed.set()
        self._thread.join()
        self._log_counts()
        self.write()

    def _run(self) -> None:
        beats = 0
        while not self._closed.wait(WRITE_SECONDS):
            beats += 1
            try:
                self.write()
            except OSError as error:
                # Prices matter more than the report about them; whoever watches sees that it has gone stale.
                _log.error("the heartbeat cannot be written: %s", error)
            if beats % round(LOG_SECONDS / WRITE_SECONDS) == 0:
                self._log_counts()

    def _log_counts(self) -> None:
        now = self._progress.snapshot()
        failures = ", ".join(f"{count} × {kind}" for kind, count in sorted(now["failures"].items())) or "none"
        _log.info(
            "%s%s: %d sent, %d acknowledged, %d skipped, %d polls missed, failures: %s; last tick %s",
            now["state"],
            f" ({now['note']})" if now["note"] else "",
            *(now[name] for name in ("sent", "acknowledged", "skipped", "missed")),
            failures,
            now["last_timestamp"],
        )
