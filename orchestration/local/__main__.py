"""`python -m orchestration.local [BUNDLE…]`: fetch what the local stack needs beside Python packages, with progress."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from orchestration import terminal
from orchestration.local import appcds
from orchestration.local.artifacts import BUNDLES, FetchFailed, ensure_tools, missing
from orchestration.local.java import Java, JavaMissing, find_java
from orchestration.settings import OrchestrationSettings, SettingsError


def fetch_with_progress(tools: Path, java: Java, console: Console, only: Collection[str] = BUNDLES) -> None:
    """Fetch what is missing with a bar for each bundle; says nothing when all is there. Raises FetchFailed."""
    names = [name for name in missing(tools, os.environ) if name in only]
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

        ensure_tools(tools, java, os.environ, report, names)


def main() -> int:
    """Fetch what is missing of the bundles named, all when none is; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.local", description="Fetches what is missing.")
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help=f"some of {', '.join(BUNDLES)}; all when left out")
    bundles = parser.parse_args().bundles
    if unknown := [name for name in bundles if name not in BUNDLES]:
        parser.error(f"there is no bundle {unknown[0]}; there are {', '.join(BUNDLES)}")
    terminal.clean_sizes()
    console = Console()
    try:
        settings = OrchestrationSettings.read()
        java = find_java(os.environ)
        fetch_with_progress(settings.tools, java, console, bundles or BUNDLES)
        if not bundles:
            with console.status("Preparing Java, this once"):
                appcds.make(settings.tools, java, os.environ, console.print)
    except (FetchFailed, JavaMissing, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    console.print(f"{', '.join(bundles) or 'All tools'}: in {settings.tools}")
    return 0


if __name__ == "__main__":
    sys.exit(terminal.guard(main, lambda sentence: sys.stderr.write(f"{sentence}\n")))
