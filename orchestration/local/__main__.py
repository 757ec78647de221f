"""`python -m orchestration.local`: fetch what the local stack needs beside Python packages, showing progress.

Here: the progress display, shared with `tickhouse up`, and the command.
Not here: the fetch itself (`orchestration.local.artifacts`).
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from orchestration.local.artifacts import FetchFailed, ensure_tools, missing
from orchestration.local.java import Java, JavaMissing, find_java
from orchestration.settings import OrchestrationSettings, SettingsError


def fetch_with_progress(tools: Path, java: Java, console: Console) -> None:
    """Fetch what is missing with a bar for each bundle; says nothing when all is there. Raises FetchFailed."""
    names = missing(tools, os.environ)
    if not names:
        return
    console.print(f"Fetching {', '.join(names)} into {tools} (once; about 100 MB)")
    names_and_bars = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    with Progress(*names_and_bars, MofNCompleteColumn(), TimeElapsedColumn(), console=console) as display:
        tasks = {name: display.add_task(name, total=None) for name in names}
        lock = threading.Lock()

        def report(bundle: str, arrived: int, total: int) -> None:
            with lock:
                display.update(tasks[bundle], completed=arrived, total=total)

        ensure_tools(tools, java, os.environ, report)


def main() -> int:
    """Fetch what is missing; returns the exit code."""
    console = Console()
    try:
        settings = OrchestrationSettings.read()
        fetch_with_progress(settings.tools, find_java(os.environ), console)
    except (FetchFailed, JavaMissing, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    console.print(f"All tools are in {settings.tools}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
