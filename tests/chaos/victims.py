"""The stack that is broken: started as a user starts it, and looked at from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from pymongo.errors import PyMongoError

from orchestration.lakehouse.tables import Lakehouse
from orchestration.local import processes
from orchestration.local.ports import answers, free_port
from orchestration.monitoring import dagster_records
from orchestration.serving.mongo import COLLECTIONS, TABLE, MongoStore
from orchestration.settings import PROJECT_ROOT, Endpoints, read_endpoints
from orchestration.supervision.lag import KafkaAway, Topics
from orchestration.supervision.stream_health import epoch_seconds
from tests.chaos import failpoints
from tests.chaos.proxy import Proxy
from tickhouse.contract.topology import JOBS

TICKHOUSE = str(Path(sys.executable).with_name("tickhouse"))
INJECTION = Path(__file__).with_name("injection")
_ASK_SECONDS = 1.0
_LAUNCH_SECONDS = 60.0


class Stack:
    """`tickhouse up` on a recording, in a session of its own, with the failpoints put in and a proxy before the broker.

    `home` must lie in a folder of its own, in which the armed failpoints are kept beside it.
    """

    def __init__(self, home: Path, recording: Path, break_marker: bool = False, durable: bool = False) -> None:
        self.home = home
        self.folder = home.with_name("failpoints")
        self.output = recording.with_name("up.log")
        self._recording = recording
        self._up: subprocess.Popen[bytes] | None = None
        self._speed = "1"
        port = free_port()
        self.proxy = Proxy(port, self._broker_port)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_CHAOS")},
            "PYTHONPATH": os.pathsep.join([str(INJECTION), str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]),
            "TICKHOUSE_KEEP_ENVIRONMENT": "PYTHONPATH",
            failpoints.FOLDER_VARIABLE: str(self.folder),
            failpoints.ADVERTISED_PORT_VARIABLE: str(port),
            failpoints.BREAK_VARIABLE: "marker" if break_marker else "",
            "TICKHOUSE_DURABLE": str(durable),
            # More commits to Delta, so that more of them are met.
            "TICKHOUSE_ARCHIVE_INTERVAL_SECONDS": "8",
        }

    @property
    def endpoints(self) -> Endpoints:
        """Where the parts listen."""
        found = read_endpoints(self.home)
        if found is None:
            raise RuntimeError(f"the stack has not started yet: see {self.output}")
        return found

    def start(self, speed: str) -> None:
        """Start it; it goes on where it was."""
        self._speed = speed
        # A power cut may have taken it.
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [TICKHOUSE, "up", "--source", f"replay:{self._recording}", "--speed", speed, "--no-ui"]
        command += ["--home", str(self.home), "--port", "0"]
        with self.output.open("ab") as output:
            self._up = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True
            )

    def start_again(self) -> None:
        """Start it as it was started last."""
        self.start(self._speed)

    def stop(self, seconds: float = 180) -> int:
        """Interrupt it as Ctrl-C does; returns its exit code."""
        assert self._up is not None
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGINT)
        return self._up.wait(timeout=seconds)

    def close(self) -> None:
        """End whatever runs, in any case."""
        self.proxy.restore()
        if self._up is not None and self._up.poll() is None:
            self._up.kill()
            self._up.wait()
        for name in processes.recorded_names(self.home):
            process = processes.recorded(self.home, name)
            if process is not None:
                processes.stop(process, 0)
        self.proxy.close()

    def kill(self) -> None:
        """SIGKILL to every process there is, as a power cut has it."""
        assert self._up is not None
        doomed = [psutil.Process(self._up.pid), *self.members()]
        for process in doomed:
            _send(process, signal.SIGKILL)
        self._up.wait()
        psutil.wait_procs(doomed, timeout=10)

    def running(self) -> bool:
        """Whether `tickhouse up` itself runs."""
        return self._up is not None and self._up.poll() is None

    def leader(self, name: str) -> psutil.Process | None:
        """The process recorded under a name, if it runs."""
        process = processes.recorded(self.home, name)
        if process is None or not processes.alive(process):
            return None
        try:
            return psutil.Process(process.pid)
        except psutil.NoSuchProcess:
            return None

    def members(self, name: str | None = None) -> list[psutil.Process]:
        """Every process of the session of a stream or service, the first of it included; of all when none is named."""
        names = processes.recorded_names(self.home) if name is None else [name]
        recorded = [processes.recorded(self.home, each) for each in names]
        sessions = {process.pid for process in recorded if process is not None}
        return [process for process in psutil.process_iter() if _session(process) in sessions]

    def part(self, stream: str, part: str) -> psutil.Process | None:
        """The `JVM` of a stream, or one `worker` forked by its Python daemon."""
        for process in self.members(stream):
            try:
                command = process.cmdline()
                parent = process.parent()
                forked = parent is not None and "spark_jobs.python_daemon" in parent.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if (part == "JVM" and command[:1] and command[0].endswith("java")) or (part == "worker" and forked):
                return process
        return None

    def run_worker(self) -> psutil.Process | None:
        """A process in which Dagster executes a run at the moment."""
        server = self.leader("code-server")
        children = server.children() if server is not None else []
        working = [run for child in children if _forks_runs(child) for run in _children(child)]
        return working[0] if working else None

    def launch_maintenance(self) -> None:
        """Have Dagster maintain the tables, bringing together even the fewest files."""
        config = {"ops": {"maintain": {"config": {"min_small_files": 2}}}}
        command = [str(Path(sys.executable).with_name("dagster")), "job", "launch", "--job", "maintain_tables"]
        command += ["--workspace", str(self.home / "dagster" / "workspace.yaml"), "--config-json", json.dumps(config)]
        environment = self._environment | {"DAGSTER_HOME": str(self.home / "dagster")}
        subprocess.run(command, env=environment, capture_output=True, timeout=_LAUNCH_SECONDS, check=True)

    def back(self, target: str, since: float) -> bool:
        """Whether a stream or service is at work again, by what it has done after `since` (epoch seconds)."""
        if target in JOBS:
            return self._stream_is_back(target, since)
        if target == "load":
            return self._is_loaded(since) and not self._seems_under_way("load_mongodb", since)
        if target == "maintenance":
            return self.leader("code-server") is not None and not self._seems_under_way("maintain_tables", since)
        if self.leader(target) is None:
            return False
        if target == "producer":
            heartbeat = processes.read_heartbeat(self.home, "producer") or {}
            return _after(heartbeat.get("written_at"), since) and heartbeat.get("state") in ("running", "ended")
        if target == "kafka":
            return self._broker_answers()
        if target == "mongod":
            return answers(int(self.endpoints.mongo_uri.split(":")[2].partition("/")[0]))
        return True

    def all_back(self, since: float) -> bool:
        """Whether all is at work again."""
        names = (*JOBS, "kafka", "mongod", "producer", "daemon", "code-server", "load")
        return self.running() and all(self.back(name, since) for name in names)

    def status(self) -> dict[str, Any]:
        """What `tickhouse status --json` says, whether all is at work or not."""
        command = [TICKHOUSE, "status", "--json", "--home", str(self.home)]
        answer = subprocess.run(command, capture_output=True, check=False, env=self._environment)
        if answer.returncode not in (0, 3):
            answer.check_returncode()
        content: dict[str, Any] = json.loads(answer.stdout)
        return content

    def _stream_is_back(self, name: str, since: float) -> bool:
        heartbeat = processes.read_heartbeat(self.home, name) or {}
        leader = self.leader(name)
        query = heartbeat.get("queries", {}).get(name, {})
        return (
            leader is not None
            and heartbeat.get("pid") == leader.pid
            and heartbeat.get("state") == "running"
            and _after(query.get("last_progress_at"), since)
        )

    def _is_loaded(self, since: float) -> bool:
        try:
            newest = Lakehouse(self.endpoints.lakehouse).version(TABLE)
            store = MongoStore(self.endpoints.mongo_uri, _ASK_SECONDS)
            try:
                loaded = store.loaded()
            finally:
                store.close()
        except (PyMongoError, OSError):
            return False
        records = [loaded.get(collection) for collection in COLLECTIONS.values()]
        return newest is not None and all(
            record is not None and (record.loaded_at.timestamp() > since or record.delta_version == newest.version)
            for record in records
        )

    def _seems_under_way(self, job: str, since: float) -> bool:
        """Whether Dagster takes a run of a job for unfinished that was begun before `since`."""
        unfinished = dagster_records.unfinished_runs(self.home / "dagster")
        return any(run.job == job and run.created_at < since for run in unfinished)

    def _broker_answers(self) -> bool:
        try:
            return bool(Topics(self.endpoints.kafka_bootstrap, _ASK_SECONDS).end_offsets(["btc-price"]))
        except KafkaAway:
            return False

    def _broker_port(self) -> int:
        found = read_endpoints(self.home)
        if found is None:
            raise ConnectionRefusedError("the broker is only just starting")
        return int(found.kafka_bootstrap.rpartition(":")[2])


def _after(text: str | None, since: float) -> bool:
    return text is not None and epoch_seconds(text) > since


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def _forks_runs(process: psutil.Process) -> bool:
    try:
        return any("multiprocessing.forkserver" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
