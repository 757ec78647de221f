"""The stack as a user runs it: watched over while it runs, and gone completely however it ends."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from orchestration.local import processes
from orchestration.local.home_lock import holder
from orchestration.local.ports import free_port
from tests.conftest import stop_all
from tests.docs.blocks import stack_commands
from tests.hostile import Hostile
from tests.integration.test_cli import TICKHOUSE, tickhouse

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.whole_machine]
STREAMS = ("prices", "moving", "zscore", "trend")
KEPT = ("simulator", "mongod", "producer", "daemon", "code-server", "kafka")


@contextmanager
def up(
    home: Path, tools: Path, *options: str, prefix: Sequence[str] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """`tickhouse up` in a session of its own, with its output in a pipe; killed at the end if it still runs.

    `prefix`: the command that becomes it.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_")}
    command = [
        *prefix,
        TICKHOUSE,
        "up",
        "--source",
        "simulator",
        "--no-ui",
        "--port",
        "0",
        "--home",
        str(home),
        *options,
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean | {"TICKHOUSE_TOOLS": str(tools)} | environment,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], sentence: str, seconds: float) -> str:
    """Read the output up to the line with the sentence; the test's own time limit ends a process that is silent."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    seen = ""
    while sentence not in seen:
        line = process.stdout.readline()
        assert line, f"it has ended without: {sentence}\n{seen}"
        assert time.monotonic() < deadline, f"not in time: {sentence}\n{seen}"
        seen += line
    return seen


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def of_home(home: Path) -> list[str]:
    """Every process of the machine that names the home in its command line or environment, recorded or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                told = " ".join([*process.cmdline(), process.environ().get("TICKHOUSE_HOME", "")])
                if str(home) in told:
                    found.append(told[:200])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def pid_of(home: Path, name: str) -> int | None:
    process = processes.recorded(home, name)
    return process.pid if process is not None and processes.alive(process) else None


def _is_back(home: Path, name: str, before: int | None) -> bool:
    return pid_of(home, name) not in (None, before)


def documents(home: Path) -> int:
    status = json.loads(tickhouse("status", "--json", "--home", str(home)).stdout)
    return int(status["load"]["btc-price-zscore-30s"]["documents"])


def test_a_running_stack(home: Path, tools: Path, tmp_path: Path) -> None:
    there = ("--home", str(home))
    with up(home, tools) as process:
        seen = read_until(process, "tickhouse down --home", 300)
        assert "z-scores are arriving" in seen
        assert "SIMULATED by a local exchange, as asked" in seen
        assert "Waiting for" in seen
        arrived = documents(home)
        assert arrived > 0

        # The last parts may still be starting.
        wait_until(lambda: tickhouse("status", *there).returncode == 0, 60, "not everything is at work")
        for name in ("code-server", "mongod", "daemon"):
            pid = pid_of(home, name)
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            asleep = tickhouse("status", "--json", *there)
            os.kill(pid, signal.SIGCONT)
            told = json.loads(asleep.stdout)
            assert (asleep.returncode, told["services"][name]["state"]) == (3, "suspended")
            assert f"{name} is suspended" in told["not_at_work"]
        wait_until(lambda: tickhouse("status", *there).returncode == 0, 60, "not everything is at work again")
        healthy = tickhouse("doctor", "--port", "0", *there, TICKHOUSE_TOOLS=str(tools))
        assert healthy.returncode == 0
        assert f"The stack of {home} is running" in healthy.stdout
        for command in (("up", "--port", "0"), ("reset", "--yes")):
            refusal = tickhouse(*command, *there, TICKHOUSE_TOOLS=str(tools))
            assert refusal.returncode == 1, command
            assert f"tickhouse down --home {home}" in refusal.stderr

        _ask_the_tables(home)
        _replay_a_recording(home, tmp_path / "ticks.jsonl")
        _do_as_the_documentation_says(home, tmp_path)

        before = {name: pid_of(home, name) for name in KEPT}
        assert None not in before.values()
        for pid in before.values():
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        for name in KEPT:
            wait_until(partial(_is_back, home, name, before[name]), 60, f"{name} is not back")
        read_until(process, "has ended by SIGKILL: by hand, or by the kernel", 10)
        later = documents(home)
        wait_until(lambda: documents(home) > later, 150, "no new z-scores after everything was killed once")

        process.kill()
        process.wait()
        assert of_home(home), "the services live on when `up` is killed"
        assert holder(home) is None
        assert "is running" not in tickhouse("doctor", "--port", "0", *there, TICKHOUSE_TOOLS=str(tools)).stdout
        refusal = tickhouse("reset", "--yes", *there)
        assert refusal.returncode == 1
        assert "still run: stop them with" in refusal.stderr
        assert "Everything is stopped" in tickhouse("down", *there).stdout
    assert of_home(home) == []
    assert tickhouse("reset", "--yes", *there).returncode == 0
    assert not home.exists()


def _ask_the_tables(home: Path) -> None:
    def sql(statement: str, form: str) -> str:
        answer = tickhouse("sql", statement, "--format", form, "--home", str(home))
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    count = "SELECT symbol, count(*) AS n FROM zscores GROUP BY symbol"
    (row,) = [json.loads(line) for line in sql(count, "json").splitlines()]
    assert row["symbol"] == "BTCUSDT"
    assert row["n"] > 0
    header, values = csv.reader(io.StringIO(sql(count, "csv")))
    assert header == ["symbol", "n"]
    assert int(values[1]) >= row["n"]
    assert "BTCUSDT" in sql(count, "table")
    one = json.loads(sql("SELECT timestamp, z_scores FROM zscores LIMIT 1", "json"))
    assert one["timestamp"].endswith("+00:00")
    assert [score["window"] for score in one["z_scores"]] == ["30s", "1m", "5m", "15m", "30m", "1h"]
    wrong = tickhouse("sql", "SELECT nothing FROM zscores", "--home", str(home))
    assert wrong.returncode == 1
    assert "zscores" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def _replay_a_recording(home: Path, recording: Path) -> None:
    ticks = [
        {"symbol": "REPLAYED", "price": 100 + n, "timestamp": f"2025-05-08T04:12:{n:02d}.000000+00:00"}
        for n in range(40)
    ]
    recording.write_text("".join(json.dumps(tick) + "\n" for tick in ticks) + '{"symbol":"REPLAYED","price":1}\n')

    def replay(*arguments: str, piped: bytes = b"") -> str:
        command = [TICKHOUSE, "replay", *arguments, "--home", str(home)]
        answer = subprocess.run(command, input=piped, capture_output=True, timeout=120)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.decode()

    told = replay(str(recording))
    assert f"{recording} (JSON lines): 40 ticks of REPLAYED, from 2025-05-08T04:12:00.000Z to " in told
    assert "Line 41 is no tick (timestamp: missing): it goes into the table rejects" in told
    assert "delivered: 30 with results; 0 late; 0 duplicates; 1 rejected; 10 wait for later ticks" in told
    # Sent again, through a pipe and compressed, it goes on behind its last line; grown, with what is new.
    again = replay("-", piped=gzip.compress(recording.read_bytes()))
    assert "standard input had been sent before, with all 41 lines: nothing is sent." in again
    ticks[0]["timestamp"] = "2025-05-08T04:12:41.000000+00:00"
    with recording.open("a") as file:
        file.write(json.dumps(ticks[0]) + "\n" + json.dumps(ticks[1]) + "\n")
    told = replay(f"file://{recording}", "--no-sort")
    assert "41 lines of it were sent before: it goes on behind them" in told
    assert "1 tick will be late and have no results in any order" in told
    assert "2 messages of" in told
    assert "delivered: 0 with results; 1 late; 0 duplicates; 0 rejected; 1 waits for later ticks" in told
    pid = pid_of(home, "producer")
    assert pid is not None, "the stack's own producer is not disturbed"


def _do_as_the_documentation_says(home: Path, folder: Path) -> None:
    with gzip.open(folder / "ticks.jsonl.gz", "wt") as recording:
        for n in range(20):
            tick = {"symbol": "DOCUMENTED", "price": 7 + n, "timestamp": f"2025-05-08T04:12:{n:02d}Z"}
            recording.write(json.dumps(tick) + "\n")
    (folder / "newest-first.jsonl").write_text(
        "".join(
            json.dumps({"symbol": "SORTED", "price": 7, "timestamp": f"2025-05-08T04:12:{59 - n}Z"}) + "\n"
            for n in range(40)
        )
    )
    rows = "".join(f"{n},42.5{n},0.1,4.25,{1_735_689_600_000_000 + n * 1_000_000},True,True\n" for n in range(20))
    with zipfile.ZipFile(folder / "BTCUSDT-trades-2025-01-01.zip", "w") as archive:
        archive.writestr("BTCUSDT-trades-2025-01-01.csv", rows)
    (folder / "trades.csv").write_text(rows)
    commands = stack_commands()
    assert commands
    for command in commands:
        subprocess.run(
            shlex.split(command),
            cwd=folder,
            env=os.environ
            | {"TICKHOUSE_HOME": str(home), "PATH": f"{Path(TICKHOUSE).parent}{os.pathsep}{os.environ['PATH']}"},
            check=True,
            timeout=120,
        )


@pytest.mark.parametrize(
    ("number", "after", "seconds"),
    [
        (signal.SIGINT, "Starting Kafka", 0.0),
        (signal.SIGTERM, "Starting Kafka", 2.0),
        (signal.SIGHUP, "Prices:", 0.0),
        (signal.SIGINT, "to be at work", 0.0),
    ],
)
def test_stopped_while_it_starts(home: Path, tools: Path, number: signal.Signals, after: str, seconds: float) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"the tests were started with {number.name} ignored, by nohup perhaps, and so is the stack")
    with up(home, tools) as process:
        read_until(process, after, 120)
        time.sleep(seconds)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert "Everything is stopped" in output
        assert "Traceback" not in output
    assert of_home(home) == []


@pytest.fixture
def hostile(tmp_path: Path, guard: Callable[[Path], None]) -> Iterator[Hostile]:
    """A home on a machine that has all of `tests.hostile` in store for whoever starts a stack."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        guard(Path(home))
        yield Hostile(Path(home), tmp_path)
        stop_all(Path(home))


def test_stopped_in_the_middle_of_a_launch_the_next_start_launches_anew_in_any_environment(
    hostile: Hostile, tools: Path
) -> None:
    home = hostile.home
    first: dict[str, int | None] = dict.fromkeys(STREAMS)
    log = home / "logs" / "code-server.log"
    # What arrives has been loaded by a sensor, so by then the supervisor has looked, too.
    for until in ("to be at work", "z-scores are arriving"):
        with up(home, tools, prefix=hostile.prefix, **hostile.environment) as process:
            read_until(process, until, 180)
            hostile.disturb(process)
            for name in STREAMS:
                wait_until(partial(_is_back, home, name, first[name]), 60, f"{name} has not been started")
            first = {name: pid_of(home, name) for name in STREAMS}
            assert "start, attempt" not in log.read_text(), "being stopped is no failure, and there is nothing to start"
            process.terminate()
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
        assert of_home(home) == []
    told = tickhouse("doctor", "--home", str(home), "--port", "0", TICKHOUSE_TOOLS=str(tools), **hostile.environment)
    assert "PYSPARK_SUBMIT_ARGS" in told.stdout
    assert hostile.strangers_that_ran() == []
    writable = [path for path in home.rglob("*") if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH]
    assert writable == [], "though the mask of new files allows everything"


def test_ctrl_c_reaches_the_helper_programs_of_a_start_as_well(home: Path, tools: Path) -> None:
    with up(home, tools) as process:
        read_until(process, "Starting Kafka", 60)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert of_home(home) == []


def test_nobody_reads_its_output_any_more(home: Path, tools: Path) -> None:
    with up(home, tools) as process:
        read_until(process, "Starting Kafka", 60)
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=120)
    assert of_home(home) == []


def test_down_stops_a_start(home: Path, tools: Path) -> None:
    with up(home, tools) as process:
        read_until(process, "Starting Kafka", 60)
        assert "Everything is stopped" in tickhouse("down", "--home", str(home)).stdout
        assert process.wait(timeout=10) == 0
    assert of_home(home) == []


def test_what_a_killed_start_left_is_stopped_by_the_next_one(home: Path, tools: Path) -> None:
    ports = {"TICKHOUSE_KAFKA_PORT": str(free_port()), "TICKHOUSE_MONGO_PORT": str(free_port())}
    fixed = ("--port", str(free_port()))
    with up(home, tools, *fixed, **ports) as first:
        read_until(first, "Prices:", 120)
    left = pid_of(home, "kafka")
    assert left is not None
    with up(home, tools, *fixed, **ports) as second:
        seen = read_until(second, "Prices:", 120)
        assert "processes that an earlier start had left behind" in seen
        assert pid_of(home, "kafka") != left
        second.terminate()
        second.communicate(timeout=120)
        assert second.returncode == 0
    assert of_home(home) == []


def test_a_topic_with_another_number_of_partitions_keeps_it_from_starting(home: Path, tools: Path) -> None:
    from orchestration.local.broker import Broker, create_topics, wait_ready
    from orchestration.local.java import find_java

    node, java, jars = Broker(home / "kafka", free_port(), free_port()), find_java(os.environ), tools / "kafka-jars"
    node.prepare(java, jars)
    broker = processes.start(home, "kafka", node.command(java, jars), os.environ)
    wait_ready(node.bootstrap, lambda: processes.alive(broker), 60)
    create_topics(node.bootstrap, ["btc-price"], partitions=1)
    processes.stop(broker)
    with up(home, tools) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "topic btc-price has 1 partitions instead of 4" in output
    assert "Traceback" not in output
    assert of_home(home) == []


def test_the_command_answers_at_once() -> None:
    best = min(_seconds(sys.executable, TICKHOUSE, "--help") for _ in range(4))
    bare = min(_seconds(sys.executable, "-c", "import typer, rich.console, pydantic_settings") for _ in range(4))
    assert best < bare + 0.5, f"{best:.2f} s, of which {bare:.2f} s are the libraries it cannot do without"


def _seconds(*command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began
