"""What the command writes to, as bad as it gets: a sentence and the right exit code, never a traceback or nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.test_cli import TICKHOUSE
from tests.reference_tables import make

pytestmark = pytest.mark.integration
FULL = "The output cannot be written: No space left on device"
GONE = "The current folder has been deleted: change to one that exists"
QUERY = "sql 'SELECT symbol FROM prices'"


class Case(NamedTuple):
    """A command as a shell has it (`{}` is Tickhouse with its home), its exit code, and what is said somewhere."""

    command: str
    code: int
    told: str


CASES = (
    Case("{} status >&-", 1, "standard output is closed"),
    Case("{} up --source nasdaq 2>&-", 1, "is one of auto, binance, simulator"),
    Case("{} status 2>&-", 3, "At work"),
    Case("{} down <&- 2>&-", 0, "Nothing runs with the home"),
    Case("{} reset <&-", 1, "Nothing is deleted."),
    Case("{} status --json >/dev/full", 1, FULL),
    Case("{} down >/dev/full", 1, FULL),
    Case("{} --help >/dev/full", 1, FULL),
    *(Case(f"{{}} {QUERY} --format {form} >/dev/full", 1, FULL) for form in ("csv", "table")),
    Case(f"{{}} {QUERY} --format parquet --output /dev/full", 1, "No space left"),
    Case("{} up --source nasdaq 2>/dev/full", 1, ""),
    Case(f"{{}} {QUERY} --limit 0 | head -1", 0, ""),
    Case("PYTHONIOENCODING=ascii {} up --source nasdaq", 1, "x TICKHOUSE_SOURCE"),
    Case("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {} status", 3, "At work"),
    Case(f"PYTHONIOENCODING=ascii {{}} {QUERY}", 0, "BTCUSDT"),
    Case("COLUMNS=0 {} status", 3, "At work"),
    Case("COLUMNS=rubbish LINES=0 TERMINAL_WIDTH=rubbish {} --help", 0, "Live crypto prices"),
    Case(f"COLUMNS=-1 TERM=dumb {{}} {QUERY}", 0, "BTCUSDT"),
    Case("cd gone && rmdir ../gone && {} status", 1, GONE),
)


def test_whatever_it_writes_to(home: Path, tmp_path: Path) -> None:
    make(home / "lakehouse", seed=2, symbols=("BTCUSDT",), ticks=300)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_")}

    def run(case: Case) -> str:
        folder = tmp_path / f"{CASES.index(case)}"
        (folder / "gone").mkdir(parents=True)
        command = case.command.replace("{}", TICKHOUSE)
        done = subprocess.run(
            ["bash", "-c", f"export TICKHOUSE_HOME={shlex.quote(str(home))}; {command}"],
            capture_output=True,
            cwd=folder,
            env=clean,
            timeout=120,
            check=False,
        )
        told = (done.stdout + done.stderr).decode()
        right = done.returncode == case.code and case.told in told and "Traceback" not in told
        return "" if right else f"{case}\nexit code {done.returncode}\n{told}\n"

    with ThreadPoolExecutor(2) as pool:
        assert "".join(pool.map(run, CASES)) == ""
    assert home.exists()
