"""The four stream jobs as detached processes: start, look at, stop."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestration.local import appcds, processes
from orchestration.local.java import JavaMissing, find_java
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from orchestration.supervision.stream_health import StreamView, judge_stream
from spark_jobs.settings import as_spark_reads
from tickhouse import environment, files
from tickhouse.contract.topology import JOBS
from tickhouse.environment import PREFIX, Need

STOP_SECONDS = 20.0
START_SECONDS = 90.0
_POLL_SECONDS = 0.25
_SUPERVISION = "streams.supervision.json"
_LOG_LINES = 30
_LOG_BYTES = 64_000


class StreamError(RuntimeError):
    """A stream did not start or ended with an error; the text says why, with the last lines of its log."""


def command_of(name: str) -> list[str]:
    """The command line of a stream job."""
    return [sys.executable, "-m", "spark_jobs", name]


def silence(_sentence: str) -> None:
    """Tell nobody."""


class Streams:
    """The stream jobs of one home.

    `command` gives the command line of a job by its name. Of `environment` their processes get what every program of
    the product gets, and what the settings say. `say` is told what is started and stopped as it happens, and may be
    called from several threads at once.
    """

    names: tuple[str, ...] = tuple(JOBS)

    def __init__(
        self,
        settings: OrchestrationSettings,
        command: Callable[[str], Sequence[str]] = command_of,
        say: Callable[[str], None] = silence,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._given = environment
        self.home = settings.home
        self._command = command
        self._say = say

    def wanted(self, name: str) -> bool:
        """Whether the stream should be running."""
        return processes.get_wanted(self.home, name) == "running"

    def observe(self, name: str, lag: int | None = None) -> StreamView:
        """Look at a stream. `lag`: messages that wait for it, None when unknown."""
        process = processes.recorded(self.home, name)
        # The heartbeat comes second: one that says "stopped" is then not older than the process's end.
        alive = process is not None and processes.alive(process)
        return judge_stream(
            pid=process.pid if process else None,
            alive=alive,
            started_at=process.create_time if process else 0.0,
            heartbeat=processes.read_heartbeat(self.home, name),
            now=time.time(),
            lag=lag,
            ended=processes.how_it_ended(process) if process and not alive else None,
            monotonic=time.monotonic(),
        )

    def given_up(self) -> dict[str, str]:
        """The streams that the supervisor has given up, with its reasons, as it noted last."""
        try:
            noted = json.loads((self.home / "run" / _SUPERVISION).read_bytes())
            return {str(name): str(reason) for name, reason in noted.items()}
        except (OSError, ValueError, AttributeError):
            # Never noted, or damaged: the supervisor notes it again.
            return {}

    def note_given_up(self, reasons: Mapping[str, str]) -> None:
        """Note which streams are given up, for those who do not ask Dagster."""
        if self.given_up() != dict(reasons):
            files.write_json(processes.run_folder(self.home) / _SUPERVISION, reasons)

    def keep(self, name: str) -> StreamView | None:
        """Launch the stream if it is (still) wanted; None when it is not."""
        return self.launch(name) if self.wanted(name) else None

    def launch(self, name: str, wait_seconds: float = START_SECONDS) -> StreamView:
        """Want the stream, start it unless it runs, and wait until it is at work.

        One that hangs or is about to end is stopped first. Raises StreamError when it ends or is not at work in time;
        it is then left as it is: wanted, and in the supervisor's care.
        """
        self.begin(name)
        deadline = time.monotonic() + wait_seconds
        while True:
            view = self.observe(name)
            if view.state == "running":
                return view
            # One that is about to end says why only once it has ended.
            if view.state not in ("starting", "stopping"):
                raise StreamError(self._told(name, f"{name} is {view.state}: {view.error}"))
            if time.monotonic() > deadline:
                raise StreamError(self._told(name, f"{name} is not at work after {wait_seconds:.0f} s"))
            time.sleep(_POLL_SECONDS)

    def begin(self, name: str) -> None:
        """Want the stream, and start it unless it runs; nothing is waited for, but the end of one that hangs or stops.

        Raises StreamError when it cannot be started.
        """
        processes.set_wanted(self.home, name, "running")
        process = processes.recorded(self.home, name)
        if process is not None and self.observe(name).state in ("hung", "stopping"):
            self._stop(process)
        if process is None or not processes.alive(process):
            self._start(name, {f"{PREFIX}TRIGGER": "continuous"})

    def stop(self, name: str) -> None:
        """Stop wanting the stream and stop it; returns when it is gone."""
        processes.set_wanted(self.home, name, "stopped")
        self.end(name)

    def end(self, name: str) -> None:
        """Stop the stream's process, whatever is wanted; returns when it is gone."""
        process = processes.recorded(self.home, name)
        if process is not None:
            self._stop(process)

    def run_available(self, name: str, timeout_seconds: float) -> StreamView:
        """Process what there is, and end.

        Raises StreamError when it fails, is stopped before it is done, or takes longer than `timeout_seconds`.
        """
        process = self._start(name, {f"{PREFIX}TRIGGER": "available_now"})
        deadline = time.monotonic() + timeout_seconds
        try:
            while processes.alive(process):
                if time.monotonic() > deadline:
                    raise StreamError(self._told(name, f"{name} was not done after {timeout_seconds:.0f} s"))
                time.sleep(_POLL_SECONDS)
        finally:
            # Whatever ends this wait, a cancelled run included, ends the process.
            self._stop(process)
        view = self.observe(name)
        if view.state == "stopped" and view.heartbeat.get("state") != "done":
            raise StreamError(self._told(name, f"{name} was stopped before it had processed all that was there"))
        if processes.exit_code(process) != 0:
            ended, error = f"ended {processes.how_it_ended(process)}", view.error
            why = f"{name} {ended}" if error == ended else f"{name} {ended}: {error}"
            raise StreamError(self._told(name, why))
        return view

    def log_path(self, name: str) -> Path:
        """Where a stream's output goes."""
        return self.home / "logs" / f"{name}.log"

    def log_tail(self, name: str, lines: int = _LOG_LINES) -> str:
        """The last lines of a stream's log; empty when there is none."""
        try:
            with self.log_path(name).open("rb") as log:
                log.seek(max(0, self.log_path(name).stat().st_size - _LOG_BYTES))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def _start(self, name: str, extra: dict[str, str]) -> processes.Process:
        try:
            process = processes.start(self.home, name, self._command(name), self._environment(name) | extra)
        except (processes.ProcessError, JavaMissing, OSError) as error:
            raise StreamError(str(error)) from error
        self._say(f"{name}: started as process {process.pid}, and not yet at work")
        return process

    def _stop(self, process: processes.Process) -> None:
        alive = processes.alive(process)
        if alive:
            self._say(f"{process.name}: stopping process {process.pid}")
        # Of one that has ended by itself something may be left.
        processes.stop(process, STOP_SECONDS)
        if alive:
            self._say(f"{process.name}: stopped process {process.pid}")

    def _environment(self, name: str) -> dict[str, str]:
        settings = self._settings
        java = find_java(self._given)
        # Its own, and empty: a JVM that was killed leaves what it had unpacked.
        shutil.rmtree(self.home / "tmp" / name, ignore_errors=True)
        scratch = environment.scratch_folder(self.home, name)
        account = environment.find_account(self._given, scratch)
        needs: tuple[Need, ...] = ("cloud",) if settings.in_the_cloud else ()
        variables = environment.child_environment(self._given, scratch, account, needs)
        variables |= {
            f"{PREFIX}HOME": str(settings.home),
            f"{PREFIX}KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            f"{PREFIX}LAKEHOUSE": settings.lakehouse,
            f"{PREFIX}CHECKPOINTS": settings.checkpoints,
            f"{PREFIX}LATENESS_SECONDS": str(settings.lateness_seconds),
            f"{PREFIX}DURABLE": str(settings.durable),
            f"{PREFIX}JARS": str(settings.jars),
            "JAVA_HOME": str(java.path),
        }
        if settings.kafka_ca_file is not None:
            variables[f"{PREFIX}KAFKA_CA_FILE"] = str(settings.kafka_ca_file)
        variables.setdefault(
            f"{PREFIX}DRIVER_JAVA_OPTIONS", as_spark_reads(appcds.stream_options(settings.tools, java))
        )
        # The code location may have been started in any folder; its processes must find the same code.
        paths = [str(PROJECT_ROOT), *filter(None, [variables.get("PYTHONPATH")])]
        variables["PYTHONPATH"] = os.pathsep.join(paths)
        return variables

    def _told(self, name: str, sentence: str) -> str:
        return f"{sentence}\nThe end of {self.log_path(name)}:\n{self.log_tail(name)}"
