"""When the parts of Dagster that nobody else watches were last at work, as files of the home."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from orchestration.local.processes import run_folder
from tickhouse.files import write_json

SUPERVISOR, LOAD_SENSOR, LOAD = "supervisor", "load_new_zscores", "load"
_OFTEN_SECONDS = 1.0


class Look(NamedTuple):
    """A look: when (epoch seconds), and what came of it."""

    at: float
    said: str


def note(home: Path, name: str, said: str) -> None:
    """Note that `name` is at work. A home that cannot be written to shows by that it grows old: nothing is raised."""
    try:
        write_json(run_folder(home) / f"{name}.look.json", Look(time.time(), said)._asdict())
    except OSError:
        return


def last(home: Path, name: str) -> Look | None:
    """The last look of `name`; None when there is none, or when the file is torn: the next one writes it anew."""
    try:
        content = json.loads((home / "run" / f"{name}.look.json").read_bytes())
        return Look(float(content["at"]), str(content["said"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def noting(home: Path, name: str) -> Callable[[str], None]:
    """For what gets on many times a second: notes it once a second at most."""
    noted_at = 0.0

    def progress(said: str) -> None:
        nonlocal noted_at
        if time.monotonic() - noted_at >= _OFTEN_SECONDS:
            noted_at = time.monotonic()
            note(home, name, said)

    return progress
