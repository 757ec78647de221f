"""What Dagster has recorded of its daemons and ticks, read from the files of a local stack.

Importing Dagster takes longer than a whole status. Its storage is SQLite, opened for reading only; what cannot be read,
because it is kept elsewhere or has another form, is not known and no failure.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

_BUSY_SECONDS = 0.3
_IN_A_ROW = 3
"""So many failed ticks in a row are no accident."""


class FailedTicks(NamedTuple):
    """A sensor or schedule whose last ticks have all failed."""

    name: str
    error: str
    at: float
    """The newest, in epoch seconds."""


class UnfinishedRun(NamedTuple):
    """A run that Dagster takes for unfinished."""

    run_id: str
    job: str
    created_at: float
    """In epoch seconds."""


def daemon_heartbeats(home: Path) -> dict[str, float]:
    """When each of Dagster's daemons reported last, in epoch seconds; empty when that is not known."""
    rows = _rows(home / "history" / "runs.db", "SELECT daemon_type, timestamp FROM daemon_heartbeats")
    return {str(name): _epoch_seconds(moment) for name, moment in rows}


def unfinished_runs(home: Path) -> list[UnfinishedRun]:
    """The runs that have not ended; empty when that is not known."""
    ended = "('SUCCESS', 'FAILURE', 'CANCELED')"
    statement = f"SELECT run_id, pipeline_name, create_timestamp FROM runs WHERE status NOT IN {ended}"  # noqa: S608
    return [
        UnfinishedRun(str(run_id), str(job), _epoch_seconds(moment))
        for run_id, job, moment in _rows(home / "history" / "runs.db", statement)
    ]


def failed_ticks(home: Path) -> list[FailedTicks]:
    """The sensors and schedules whose last ticks have all failed; empty when that is not known."""
    database = home / "schedules" / "schedules.db"
    found = []
    for (selector,) in _rows(database, "SELECT selector_id FROM instigators WHERE status != 'STOPPED'"):
        statement = "SELECT status, timestamp, tick_body FROM job_ticks WHERE selector_id = ? AND status != 'STARTED'"
        # In the order of their making: the clock may have been set back in between.
        ticks = _rows(database, f"{statement} ORDER BY id DESC LIMIT {_IN_A_ROW}", selector)
        if len(ticks) == _IN_A_ROW and all(status == "FAILURE" for status, _, _ in ticks):
            _, moment, body = ticks[0]
            found.append(FailedTicks(*_told(body), _epoch_seconds(moment)))
    return found


def _told(body: str) -> tuple[str, str]:
    """The name and the error of a tick, as far as they can be read."""
    try:
        content = json.loads(body)
        error = (content.get("error") or {}).get("message") or "no reason"
        return str(content.get("job_name")), str(error).strip().splitlines()[0]
    except (ValueError, AttributeError):
        return "unknown", "its tick cannot be read"


def _rows(database: Path, statement: str, *parameters: Any) -> list[Any]:
    if not database.is_file():
        return []
    try:
        address = f"{database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as connection:
            return connection.execute(statement, parameters).fetchall()
    except sqlite3.Error:
        return []


def _epoch_seconds(text: str) -> float:
    """A time as SQLAlchemy writes it to SQLite: UTC without saying so."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()
