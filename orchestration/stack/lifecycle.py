"""The whole stack on this machine: brought up, kept up, taken down."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from confluent_kafka import KafkaException
from pydantic import SecretStr

from orchestration.local import appcds, processes
from orchestration.local import broker as kafka_broker
from orchestration.local import home as homes
from orchestration.local import mongod as mongo_server
from orchestration.local.artifacts import Progress, ensure_tools
from orchestration.local.broker import NotReady
from orchestration.local.home_lock import holder, only_instance
from orchestration.local.java import find_java
from orchestration.local.limits import raise_limits
from orchestration.local.ports import answers
from orchestration.monitoring.status import Status, collect
from orchestration.settings import Endpoints, OrchestrationSettings, write_endpoints
from orchestration.stack import services
from orchestration.stack.readiness import Readiness
from orchestration.stack.service_supervisor import ServiceSupervisor
from orchestration.stack.services import Service
from orchestration.supervision.streams import STOP_SECONDS, StreamError, Streams
from producer.exchanges.binance_answers import Refusal, read_answer
from producer.exchanges.binance_client import PriceClient
from producer.heartbeat import utc_text
from producer.recordings.errors import RecordingError
from producer.recordings.location import readable_again
from spark_jobs.shutdown import StopRequest
from tickhouse.contract.topology import JOBS, TOPICS

_READY_SECONDS = 90.0
_DOWN_SECONDS = 150.0
_LOOK_SECONDS = 1.0
_GLANCE_SECONDS = 0.25
_PROBE_SECONDS = 5.0
_BINANCE_URL = "https://api.binance.com"
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_ORDER = (
    ("daemon",),
    ("code-server", "webserver", "board", "producer"),
    tuple(JOBS),
    ("simulator", "mongod", "kafka"),
)
"""One group after the other: Dagster first, so that nothing is launched again, and the stores last, so that everything
can be finished. Those of a group stop side by side: each stream finishes its micro-batch, for example."""
_FIRST_STREAMS = ("moving", "zscore")
"""On the way to the first z-scores. A start is short of nothing but CPU, so all else waits for these to compute."""
_HEAD_START_SECONDS = 30.0
_KNOWN = [name for group in _STOP_ORDER for name in group]

Say = Callable[[str], None]


class Stopped(Exception):
    """The stack was asked to stop."""


class StackError(RuntimeError):
    """The stack cannot go on; the text says why and what to do."""


def bring_up(
    settings: OrchestrationSettings,
    *,
    ui: bool,
    say: Say,
    progress: Progress,
    ready: Callable[[Status, str], None],
    waiting: Callable[[str], None],
) -> None:
    """Bring the stack up and keep it up until SIGINT or SIGTERM; then take it down, leaving no process.

    `say` is told what happens, `progress` how a fetch gets on, `waiting` what is waited for until z-scores arrive,
    and `ready` once they do, with a sentence that says so. Raises StackError, AlreadyRunning, FetchFailed and what
    the parts raise when they cannot start; the stack is down then, too.
    """
    with only_instance(settings.home), _stop_requests() as stop:
        homes.mark(settings.home)
        _end_leftovers(settings.home, say)
        # What killed programs had unpacked there, nobody else removes.
        shutil.rmtree(settings.home / "tmp", ignore_errors=True)
        try:
            with _readable_source(settings) as settings:
                stack = _Stack(settings, ui, say, stop)
                raise_limits()
                stack.start(progress)
                stack.watch(ready, waiting)
        except Stopped:
            pass
        except STARTUP_FAILURES:
            # Ctrl-C in a terminal also reaches the helper programs of a start: that they fail is then no news.
            if not stop.is_set():
                raise
        finally:
            try:
                say("Stopping")
            finally:  # also when nobody can hear it any more: a closed terminal, a broken pipe
                take_down(settings.home)
            say("Everything is stopped")


def request_down(home: Path) -> bool:
    """Ask a running `up` of that home to stop and wait until it has, or stop what one that was killed left behind.

    Returns whether there was anything to stop. Raises StackError when it does not stop in time, AlreadyRunning when
    one is just starting.
    """
    pid = holder(home)
    if pid is None:
        if not homes.is_home(home):
            return False
        with only_instance(home):
            return take_down(home) > 0
    with suppress(ProcessLookupError):  # it may have ended this moment
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while holder(home) == pid:
        if time.monotonic() > deadline:
            raise StackError(f"process {pid} has not stopped within {_DOWN_SECONDS:.0f} s: see {home / 'logs'}")
        time.sleep(0.1)
    return True


def take_down(home: Path) -> int:
    """Stop every process that is recorded in the home, in order; returns how many were running."""
    running = _running(home)
    for names in (*([name] for name in running if name not in _KNOWN), *_STOP_ORDER):
        # Looked up again each time: a launch that was under way may have started a stream in the meantime.
        together = [process for name, process in _running(home).items() if name in names]
        with ThreadPoolExecutor(max(1, len(together))) as pool:
            list(pool.map(lambda process: processes.stop(process, STOP_SECONDS), together))
    for name in processes.recorded_names(home):
        # One that a launch was just starting, and that ended with the launch, may have left something that began late.
        if (process := processes.recorded(home, name)) is not None:
            processes.stop(process, STOP_SECONDS)
    return len(running)


def remove_data(home: Path) -> homes.Contents:
    """Delete what is in a home while nothing runs in it, and the home, too, if nothing is left.

    Raises NotOurs, AlreadyRunning, ProcessError when processes run that no `up` watches over, and OSError.
    """
    homes.require_removable(home)
    with only_instance(home):
        homes.require_removable(home)  # another removal may have been quicker
        running = _running(home)
        if running:
            raise processes.ProcessError(
                f"{', '.join(running)} of {home} still run: stop them with `tickhouse down --home {home}`"
            )
        return homes.remove(home)


def _running(home: Path) -> dict[str, processes.Process]:
    recorded = {name: processes.recorded(home, name) for name in processes.recorded_names(home)}
    return {name: process for name, process in recorded.items() if process is not None and processes.alive(process)}


@contextmanager
def _stop_requests() -> Iterator[StopRequest]:
    stop = StopRequest()

    def request(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    earlier = _handle(request)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _handle(request: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Let the signals that stop a stack do so; returns how they were handled before.

    What was ignored stays so, as `nohup` and the `&` of a script want it, but by a handler: programs that are started
    would inherit that a signal is ignored, and could not be stopped by it. SIGTERM is how `tickhouse down` asks.
    """
    earlier = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    for number, handler in earlier.items():
        ignored = number != signal.SIGTERM and handler in (signal.SIG_IGN, _ignore)
        signal.signal(number, _ignore if ignored else request)
    return earlier


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A signal that is ignored here, and not by programs that are started."""


def _end_leftovers(home: Path, say: Say) -> None:
    """What an `up` that was killed left running has ports and settings that may not be this one's."""
    left = take_down(home)
    if left:
        say(f"Stopped {left} processes that an earlier start had left behind")


@contextmanager
def _readable_source(settings: OrchestrationSettings) -> Iterator[OrchestrationSettings]:
    """The settings with a source that a producer can read again whenever it starts. Raises StackError."""
    file = settings.replay_file
    if file is None:
        yield settings
        return
    try:
        with readable_again(file, settings.home / "run" / "input") as place:
            if place.path != file:
                # Loaded for a pipe only, whose content no check before the start could see.
                from producer.recordings.recording import Recording

                Recording(place, settings.replay_symbol or None)
            yield settings.model_copy(update={"source": f"replay:{place.path}", "replay_name": place.name})
    except RecordingError as error:
        raise StackError(str(error)) from error


class _Stack:
    def __init__(self, settings: OrchestrationSettings, ui: bool, say: Say, stop: StopRequest) -> None:
        self._settings = settings
        self._home = settings.home
        self._say = say
        self._stop = stop
        self._began = utc_text(time.time())
        self._told: set[str] = set()
        self._java = find_java(os.environ)
        self._ports = services.choose_ports(settings, ui=ui)

    def start(self, progress: Progress) -> None:
        """Start all services, the slow ones side by side."""
        with _interrupting(self._stop):
            ensure_tools(self._settings.tools, self._java, os.environ, progress)
            appcds.make(self._settings.tools, self._java, os.environ, self._say)
            source, note, binance_url = self._choose_source()
        addresses = {
            # The broker of this stack is for this machine only, and asks for nothing.
            "kafka_bootstrap": f"127.0.0.1:{self._ports.kafka}",
            "kafka_security_protocol": "PLAINTEXT",
            "kafka_username": "",
            "kafka_password": SecretStr(""),
            "kafka_ca_file": None,
            "mongo_uri": SecretStr(mongo_server.Mongod(self._home / "mongo", self._ports.mongo).uri),
        }
        self._settings = self._settings.model_copy(update=addresses)
        environment_with = partial(
            services.child_environment, self._settings, self._java, binance_url, dict(os.environ)
        )
        self._keeper = ServiceSupervisor(self._home, lambda service: environment_with(service.outside), self._say)
        if self._java.note:
            self._say(self._java.note)
        self._say("Starting Kafka and MongoDB")
        broker = services.broker(self._settings, self._ports)
        self._launch(services.kafka(self._settings, broker, self._java))
        self._launch(services.mongod(self._settings, self._ports))
        write_endpoints(self._home, self._endpoints(source, note, binance_url))
        kafka_broker.wait_ready(self._settings.kafka_bootstrap, self._alive("kafka"), _READY_SECONDS)
        broker.make_topics(TOPICS)
        needs = ["kafka"]
        if source == "simulator":
            needs.append("simulator")
            self._launch(services.simulator(self._ports))
            self._wait_for_port("simulator", self._ports.simulator)
        self._launch(services.producer(tuple(needs)))
        self._say(f"Prices: {note or source}")
        streams = Streams(self._settings, environment=environment_with(("cloud",)))
        self._say(f"Starting the streams, {' and '.join(_FIRST_STREAMS)} first")
        self._begin(streams, _FIRST_STREAMS)
        mongo_server.wait_ready(self._settings.mongo_uri.get_secret_value(), self._alive("mongod"), _READY_SECONDS)
        self._give_head_start(streams, _FIRST_STREAMS)
        self._begin(streams, [name for name in JOBS if name not in _FIRST_STREAMS])
        self._say("Starting Dagster")
        code_server, *other_dagster = services.dagster(self._settings, self._ports)
        self._launch(code_server)
        self._wait_for_port("code-server", self._ports.code_server)
        for service in other_dagster:
            self._launch(service)
        if self._ports.board is not None:
            self._launch(services.board(self._ports.board))

    def watch(self, ready: Callable[[Status, str], None], waiting: Callable[[str], None]) -> None:
        """Keep the services running; returns never, raises Stopped."""
        arrival = Readiness(self._settings.lateness_seconds)
        arrived = False
        while not self._stop.wait(_LOOK_SECONDS):
            self._keeper.look()
            self._tell_of_recording()
            if not arrived:
                status = collect(self._settings)
                arrived, sentence = arrival.judge(status)
                if arrived:
                    ready(status, sentence)
                else:
                    waiting(sentence)
        raise Stopped

    def _tell_of_recording(self) -> None:
        """Say what the producer says of its recording, before it sends it and after."""
        if self._settings.replay_file is None:
            return
        heartbeat = processes.read_heartbeat(self._home, "producer") or {}
        if heartbeat.get("written_at", "") < self._began:  # an earlier start's
            return
        for sentence in [*heartbeat.get("found", ()), *heartbeat.get("delivered", ())]:
            if sentence not in self._told:
                self._told.add(sentence)
                self._say(sentence)

    def _choose_source(self) -> tuple[str, str | None, str | None]:
        """The source, what has to be said of it, and where the exchange is."""
        settings = self._settings
        url = settings.binance_url or _BINANCE_URL
        if settings.replay_file is not None:
            return settings.source, f"a recording, {settings.replay_name}", None
        if settings.source == "binance":
            return "binance", None, url
        simulated = f"http://127.0.0.1:{self._ports.simulator}"
        if settings.source == "simulator":
            return "simulator", "SIMULATED by a local exchange, as asked", simulated
        reason = why_unusable(url, settings.symbols)
        if reason is None:
            return "binance", None, url
        return "simulator", f"SIMULATED by a local exchange, because Binance does not answer ({reason})", simulated

    def _endpoints(self, source: str, note: str | None, binance_url: str | None) -> Endpoints:
        settings = self._settings
        return Endpoints(
            kafka_bootstrap=settings.kafka_bootstrap,
            mongo_uri=settings.mongo_uri.get_secret_value(),
            lakehouse=settings.lakehouse,
            checkpoints=settings.checkpoints,
            dagster_url=f"http://127.0.0.1:{self._ports.ui}" if self._ports.ui else None,
            board_url=f"http://127.0.0.1:{self._ports.board}" if self._ports.board else None,
            source=source,
            source_note=note,
            binance_url=binance_url,
            symbols=settings.symbols,
            speed=settings.speed,
            lateness_seconds=settings.lateness_seconds,
        )

    def _launch(self, service: Service) -> None:
        if self._stop.is_set():
            raise Stopped
        self._keeper.launch(service)

    def _begin(self, streams: Streams, names: Sequence[str]) -> None:
        for name in names:
            try:
                streams.begin(name)
            except StreamError as error:
                # Wanted it is, so Dagster's supervisor goes on trying, and tells of it.
                self._say(f"{error}")

    def _give_head_start(self, streams: Streams, names: Sequence[str]) -> None:
        """Wait until streams have done a micro-batch. What keeps one from it is for the supervisor to see to."""
        deadline = time.monotonic() + _HEAD_START_SECONDS
        while time.monotonic() < deadline and any(
            view.state == "starting" or (view.state == "running" and not view.has_computed)
            for view in map(streams.observe, names)
        ):
            if self._stop.wait(_GLANCE_SECONDS):
                raise Stopped

    def _alive(self, name: str) -> Callable[[], bool]:
        """For waiting: whether the service lives; ends the wait when it does not, or when the stack is to stop."""

        def look() -> bool:
            if self._stop.is_set():
                raise Stopped
            self._keeper.require(name)
            return True

        return look

    def _wait_for_port(self, name: str, port: int) -> None:
        alive = self._alive(name)
        deadline = time.monotonic() + _READY_SECONDS
        while not answers(port):
            alive()
            if time.monotonic() > deadline:
                raise NotReady(f"{name} has not started: see {self._home / 'logs' / name}.log")
            time.sleep(0.1)


@contextmanager
def _interrupting(stop: StopRequest) -> Iterator[None]:
    """While nothing has been started a request to stop may interrupt whatever goes on."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        raise Stopped

    earlier = _handle(interrupt)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def why_unusable(url: str, symbols: Sequence[str]) -> str | None:
    """Why the exchange cannot be used, in a few words; None if it answers as the producer needs it."""
    client = PriceClient(url, symbols, _PROBE_SECONDS)
    received = client.ask()
    client.close()
    read = received if isinstance(received, Refusal) else read_answer(received.answer, symbols, time.time())
    # A symbol that it does not know is for the producer to complain about: the exchange does answer.
    return read.reason if isinstance(read, Refusal) else None


STARTUP_FAILURES = (StackError, NotReady, kafka_broker.TopicMismatch, processes.ProcessError, KafkaException)
"""What can keep a part from starting, each with a text that says what to do."""
