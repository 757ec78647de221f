"""`tickhouse replay` as a user types it, with a real broker and no streams: what it says is true of what it sent."""

from __future__ import annotations

import datetime
import json
import os
import pty
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from orchestration.local.broker import create_topics
from orchestration.local.home_lock import only_instance
from tickhouse.contract.topology import TOPICS

pytestmark = pytest.mark.integration
TICKHOUSE = str(Path(sys.executable).with_name("tickhouse"))

Replay = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def replay(home: Path, broker: str, tmp_path: Path) -> Replay:
    create_topics(broker, TOPICS)
    environment = {**os.environ, "COLUMNS": "1000", "TICKHOUSE_KAFKA_BOOTSTRAP": broker, "TICKHOUSE_HOME": str(home)}

    def run(command: str, typed: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of the shell with `tickhouse` in it; `typed` is typed on a terminal."""
        shell = ["bash", "-c", command.replace("tickhouse", TICKHOUSE)]
        with only_instance(home):
            if typed is None:
                done = subprocess.run(
                    shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, input=""
                )
            else:
                ours, theirs = pty.openpty()
                os.write(ours, typed.encode())
                done = subprocess.run(
                    shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, stdin=theirs
                )
                os.close(ours)
                os.close(theirs)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert not (home / "replay" / "input").exists()
        return done

    return run


def new_symbol() -> str:
    return uuid.uuid4().hex[:12].upper()


def newest_first(symbol: str) -> bytes:
    start = datetime.datetime(2025, 5, 8, tzinfo=datetime.UTC)
    ticks = (
        {"symbol": symbol, "price": 5, "timestamp": (start - datetime.timedelta(seconds=n / 10)).isoformat()}
        for n in range(600)
    )
    return b"".join(json.dumps(tick).encode() + b"\n" for tick in ticks)


def test_a_dump_with_the_newest_first(replay: Replay, tmp_path: Path) -> None:
    symbol = new_symbol()
    (tmp_path / "dump").write_bytes(newest_first(symbol))
    late = "499 ticks will be late and have no results: more than 10 s older than one of the same symbol before"
    refused = replay("tickhouse replay dump", typed="n\nn\n", code=1)
    assert late in refused.stdout
    assert "nothing is sent" in refused.stderr
    sent = replay("tickhouse replay dump", typed="y\n").stdout
    assert late in sent
    assert "delivered: 500 with results; 0 late; 0 duplicates; 0 rejected; 100 wait for later ticks" in sent
    as_it_is = replay("tickhouse replay dump").stdout
    assert "499 ticks will be late and have no results in any order: the topic has ticks of the same symbol" in as_it_is
    assert "delivered: 0 with results; 499 late; 101 duplicates; 0 rejected; 0 wait for later ticks" in as_it_is


def test_files_and_pipes_as_people_have_them(replay: Replay, tmp_path: Path) -> None:
    symbol = new_symbol()
    rows = "".join(f"{n},42.5,0.1,4.2,{1_735_689_600_000_000 + n * 500},True,True\n" for n in range(60_000))
    name = f"{symbol}-trades-2025-01-01"
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.csv", rows)
    sent = replay(f"tickhouse replay {name}.zip").stdout
    assert (
        f"(Binance's archive, trades of {symbol}): 60,000 ticks of {symbol}, from 2025-01-01T00:00:00.000Z to" in sent
    )
    assert "30,000 ticks repeat the symbol and the millisecond of an earlier one: of each, the first counts" in sent
    assert "60,000 messages of" in sent
    assert "delivered: 20,000 with results; 0 late; 30,000 duplicates; 0 rejected; 10,000 wait for later ticks" in sent
    (tmp_path / "rows").write_bytes(zstd.compress(rows.encode()))
    again = replay(f"tickhouse replay <(cat rows) --symbol {symbol.lower()}").stdout
    assert "had been sent before, with all 60,000 lines: nothing is sent." in again
    refused = replay("printf '[{\"a\": 1}]' | tickhouse replay -", code=1).stderr
    assert "standard input is no recording, so nothing is sent: it looks like a JSON array" in refused
