"""The command as a user types it: refusals in one sentence, and answers with nothing running."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration.lakehouse.sql import EXAMPLES
from orchestration.local.home_lock import only_instance
from tests.reference_tables import make

pytestmark = pytest.mark.integration
TICKHOUSE = str(Path(sys.executable).with_name("tickhouse"))


def tickhouse(*arguments: str, answer: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_")}
    return subprocess.run(
        [TICKHOUSE, *arguments],
        capture_output=True,
        text=True,
        input=answer,
        env={**clean, "COLUMNS": "1000", **environment},
        timeout=120,
        check=False,
    )


def test_a_port_in_use(home: Path, tools: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in ("doctor", "up"):
            result = tickhouse(command, "--home", str(home), "--port", str(port), TICKHOUSE_TOOLS=str(tools))
            assert result.returncode == 1
            assert f"Port {port} on 127.0.0.1, meant for the Dagster UI, is in use" in result.stderr
            assert "--port 0" in result.stderr
    assert not (home / "run").exists(), "something was started"


def test_another_instance_on_the_same_home(home: Path) -> None:
    with only_instance(home):
        result = tickhouse("up", "--home", str(home), "--port", "0")
        healthy = tickhouse("doctor", "--home", str(home), "--port", "0")
    assert healthy.returncode == 0
    assert f"✓ The stack of {home} is running (process {os.getpid()})" in healthy.stdout
    assert result.returncode == 1
    assert f"Another `tickhouse up` (process {os.getpid()})" in result.stderr
    assert "tickhouse down" in result.stderr


def test_an_unsuitable_java_is_passed_over_for_the_packaged_one(home: Path, tmp_path: Path, tools: Path) -> None:
    old = tmp_path / "java8" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    old.chmod(0o755)
    result = tickhouse(
        "doctor", "--home", str(home), "--port", "0", TICKHOUSE_TOOLS=str(tools), JAVA_HOME=str(old.parents[1]), PATH=""
    )
    assert result.returncode == 0, result.stderr
    assert "Java 21" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("up", "--source", "nasdaq"), "is one of auto, binance, simulator or replay:FILE"),
        (("up", "--symbols", "btc usdt"), "needs symbols such as BTCUSDT,ETHUSDT"),
        (("up", "--speed", "fast"), "is 1, a factor such as 10, or max"),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(home: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = tickhouse(*arguments, "--home", str(home))
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_before_the_first_start(home: Path) -> None:
    answer = tickhouse("status", "--json", "--home", str(home))
    status = json.loads(answer.stdout)
    assert answer.returncode == 3
    assert status["drained"] is False
    assert {stream["state"] for stream in status["streams"].values()} == {"stopped"}
    assert "Nothing runs" in tickhouse("down", "--home", str(home)).stdout
    assert "there are no tables" in tickhouse("sql", "SELECT 1", "--home", str(home)).stderr
    assert "start it with `tickhouse up`" in tickhouse("replay", __file__, "--home", str(home)).stderr


def test_sql_shows_what_there_is_and_writes_files(home: Path, tmp_path: Path) -> None:
    ticks = len(make(home / "lakehouse", seed=2, symbols=("BTCUSDT",), ticks=300).prices)
    there = ("--home", str(home))

    listing = tickhouse("sql", *there)
    assert listing.returncode == 0, listing.stderr
    assert f"prices: {ticks} rows" in listing.stdout
    assert "trading pair" in listing.stdout
    assert all(sql in listing.stdout for sql in EXAMPLES.values())

    everything = "SELECT symbol, price, timestamp FROM prices"
    table = tickhouse("sql", everything, *there)
    assert table.stdout.count("BTCUSDT") == 100
    assert "the first 100 rows: --limit 0 shows all" in table.stderr
    table = tickhouse("sql", everything, "--limit", "0", *there)
    assert (table.stdout.count("BTCUSDT"), table.stderr) == (ticks, "")
    assert tickhouse("sql", everything, "--format", "csv", *there).stdout.count("BTCUSDT") == ticks

    file = tmp_path / "prices.csv"
    assert f"{ticks} rows are in {file}" in tickhouse("sql", everything, "--output", str(file), *there).stdout
    with file.open() as lines:
        assert sum(row["symbol"] == "BTCUSDT" for row in csv.DictReader(lines)) == ticks
    again = ("sql", f"{everything} LIMIT 5", "--output", str(file))
    refusal = tickhouse(*again, *there)
    assert refusal.returncode == 1
    assert f"{file} exists" in refusal.stderr
    written = tickhouse(*again, "--overwrite", "--format", "parquet", *there)
    assert "5 rows are in" in written.stdout, written.stderr
    assert pq.read_table(file).num_rows == 5


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--format", "parquet"), 2, "parquet needs --output FILE"),
        (("--format", "xml"), 2, "Invalid value for '--format': 'xml' is not one of table, csv, json, parquet"),
        (("--output", "rows.txt"), 2, "by its ending (.csv, .json, .jsonl or .parquet) or by --format"),
        (("--output", "no/such/folder/rows.csv"), 1, "cannot be written: No such file or directory"),
    ],
)
def test_sql_says_what_cannot_be_written(home: Path, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    make(home / "lakehouse", seed=2, symbols=("BTCUSDT",), ticks=3)
    refusal = tickhouse("sql", "SELECT 1", *arguments, "--home", str(home))
    assert refusal.returncode == code
    assert sentence in refusal.stderr
    assert "Traceback" not in refusal.stderr


@pytest.mark.timeout(60)
def test_the_status_is_watched_until_ctrl_c(home: Path) -> None:
    with subprocess.Popen(
        [TICKHOUSE, "status", "--watch", "--home", str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        seen = 0
        while seen < 2:  # it looks again
            line = watching.stdout.readline()
            assert line, "it has ended by itself"
            seen += line.startswith("Streams")
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=20)
    assert watching.returncode == 3, errors
    assert errors == ""


@pytest.mark.timeout(60)
def test_the_status_is_watched_on_a_terminal(home: Path) -> None:
    reader, terminal = pty.openpty()
    command = [TICKHOUSE, "status", "--watch", "--home", str(home)]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, close_fds=True) as watching:
        os.close(terminal)
        seen = b""
        while seen.count(b"Streams") < 2:
            seen += os.read(reader, 65_536)
        watching.send_signal(signal.SIGINT)
        while _read(reader):
            pass
    os.close(reader)
    assert watching.returncode == 3


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux says that the other side has closed it
        return b""


def test_reset_tells_what_lies_elsewhere(home: Path, tmp_path: Path) -> None:
    answer = tickhouse("reset", "--yes", "--home", str(home), TICKHOUSE_LAKEHOUSE=str(tmp_path / "tables"))
    assert answer.returncode == 0
    assert f"{tmp_path / 'tables'} is not in it and stays" in answer.stdout
    assert "checkpoints" not in answer.stdout


def test_reset_tells_what_it_deletes_and_asks_first(home: Path, tmp_path: Path) -> None:
    assert "not a home of tickhouse" in tickhouse("reset", "--yes", "--home", str(tmp_path)).stderr
    make(home / "lakehouse", seed=2, symbols=("BTCUSDT",), ticks=3)
    (home / "notes.txt").touch()
    refused = tickhouse("reset", "--home", str(home), answer="n\n")
    assert refused.returncode == 1
    assert re.search(r"lakehouse +Delta tables +[1-9][0-9]* files, [0-9.]+ kB\n", refused.stdout)
    assert f"{home / 'notes.txt'} stays: not made by Tickhouse" in refused.stdout
    assert refused.stdout.endswith("[y/N]: \nNothing is deleted.\n")
    assert "Nothing is deleted." in tickhouse("reset", "--home", str(home)).stdout, "nobody to answer"
    assert (home / "lakehouse" / "prices").exists()
    (home / "notes.txt").unlink()
    assert tickhouse("reset", "--home", str(home), answer="y\n").returncode == 0
    assert not home.exists()
