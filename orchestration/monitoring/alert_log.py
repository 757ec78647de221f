"""The log of alerts: what was raised and what was cleared, one JSON object per line in `<home>/alerts.jsonl`."""

from __future__ import annotations

import datetime
from collections import deque
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

_NAME = "alerts.jsonl"
_KEPT_BYTES = 1_000_000
"""Above twice this size the older half is dropped: the log is for people, who look at its end."""


class Alert(BaseModel):
    """One line: `key` names what is wrong, such as `stream:moving`, and is the same when it is cleared."""

    at: datetime.datetime
    key: str
    state: Literal["raised", "cleared"]
    title: str
    detail: str = ""


def append(home: Path, alert: Alert) -> None:
    """Add a line, at once and whole."""
    path = home / _NAME
    with path.open("ab") as log:
        log.write(alert.model_dump_json().encode() + b"\n")
    if path.stat().st_size > 2 * _KEPT_BYTES:
        kept = path.read_bytes()[-_KEPT_BYTES:].split(b"\n", maxsplit=1)[1]
        shorter = path.with_suffix(".new")
        shorter.write_bytes(kept)
        shorter.replace(path)


def latest(home: Path, count: int) -> list[Alert]:
    """The last `count` lines, newest first; none when there was never an alert. A damaged line is left out."""
    try:
        with (home / _NAME).open("rb") as log:
            lines = deque(log, maxlen=count)
    except FileNotFoundError:
        return []
    alerts = []
    for line in reversed(lines):
        try:
            alerts.append(Alert.model_validate_json(line))
        except ValidationError:
            continue  # cut off in the middle by a full disk; its neighbours are whole
    return alerts
