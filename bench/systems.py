"""Who takes part: this project, whole and in part, and its peers, each with what it is asked and what it gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.peer_envs import PEERS, Unavailable, Workshop
from bench.testbed import Ground
from orchestration.local import processes
from orchestration.local.artifacts import spark_jars
from orchestration.local.ports import free_port
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.streams import StreamError, Streams
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, ZSCORE_TOPIC

Start = Callable[[Ground, Path], list[processes.Process]]
"""Starts a contestant on a ground, in a home of its own; returns what was started."""

EXACTLY_ONCE, AT_LEAST_ONCE = "exactly once", "at least once"
_WINDOWS = (MOVING_TOPIC, ZSCORE_TOPIC)
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Contestant:
    """One that takes part."""

    name: str
    title: str
    asked: str
    delivery: str
    outputs: tuple[str, ...]
    """Topics on which it publishes, one message for each tick unless `gives` says otherwise."""
    start: Start
    ready: Callable[[Workshop], None] = lambda _: None
    gives: str = ""
    """What it gives where that is not what the contract owes; empty when it is."""
    of_project: bool = False
    per_tick: bool = True
    """Whether there is a result for each tick. If not, the ticks that it has worked through are taken from its log."""
    to_the_end: bool = False
    """Whether it is given the time to finish a backlog: of several streams none is measured alone, as none waits for
    another, and a tick counts when the last of them is done with it."""

    @property
    def delayed_on(self) -> str:
        """The topic on which its delay is measured."""
        return ZSCORE_TOPIC if ZSCORE_TOPIC in self.outputs else self.outputs[0]


def _streams(*names: str) -> Start:
    """Start streams of this project as the orchestration does, all at once."""

    def start(ground: Ground, home: Path) -> list[processes.Process]:
        settings = OrchestrationSettings.read(
            of_running_stack=False, home=home, tools=ground.tools, kafka_bootstrap=ground.bootstrap
        )
        streams = Streams(settings)
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: _launch(streams, name), names))
        return [process for name in names if (process := processes.recorded(home, name)) is not None]

    return start


def _launch(streams: Streams, name: str) -> None:
    try:
        streams.launch(name, _START_SECONDS)
    except StreamError:
        # On a machine that is busy Spark does not wait long enough for its first worker. The supervisor starts such a
        # stream again, and there is none here.
        streams.launch(name, _START_SECONDS)


def _spark(peer: str, options: Mapping[str, str] | None = None) -> Start:
    def start(ground: Ground, home: Path) -> list[processes.Process]:
        environment = {
            "PEER_JARS": str(spark_jars(ground.tools)),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            **(options or {}),
        }
        return [ground.run(home, peer, [sys.executable, str(PEERS / peer / "main.py")], environment)]

    return start


def _python_path(peer: str) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join((str(PEERS), str(PEERS / peer))), "PYTHONUNBUFFERED": "1"}


def _interpreter(ground: Ground, peer: str) -> str:
    return str(ground.tools / "peers" / peer / "bin" / "python")


def _quix(ground: Ground, home: Path) -> list[processes.Process]:
    # Two instances of one consumer group, as its documentation has it for more than one core.
    command = [_interpreter(ground, "quixstreams"), str(PEERS / "quixstreams" / "main.py")]
    return [
        ground.run(
            home, f"quix-{number}", command, _python_path("quixstreams") | {"PEER_STATE": str(home / f"state-{number}")}
        )
        for number in (1, 2)
    ]


def _bytewax(ground: Ground, home: Path) -> list[processes.Process]:
    python, state = _interpreter(ground, "bytewax"), home / "recovery"
    state.mkdir()
    subprocess.run([python, "-m", "bytewax.recovery", str(state), "2"], check=True, capture_output=True, timeout=60)
    first = free_port()
    addresses = f"127.0.0.1:{first};127.0.0.1:{free_port((first,))}"
    command = [python, "-m", "bytewax.run", "flow:flow", "-r", str(state), "-s", "10", "-b", "0", "-a", addresses, "-i"]
    return [
        ground.run(home, f"bytewax-{number}", [*command, str(number)], _python_path("bytewax")) for number in (0, 1)
    ]


def _kafka_streams(ground: Ground, home: Path) -> list[processes.Process]:
    class_path = os.pathsep.join(
        (
            str(ground.tools / "peers" / "kafka_streams-classes"),
            str(ground.tools / "peers" / "kafka-streams-jars" / "*"),
            str(ground.tools / "kafka-jars" / "*"),
        )
    )
    command = [str(ground.java.executable), "-Xmx1g", "-Dlog4j2.level=ERROR", "-cp", class_path, "Windows"]
    return [ground.run(home, "kafka-streams", command, {})]


def _ready_kafka_streams(workshop: Workshop) -> None:
    jars = workshop.jars("kafka_streams", "kafka-streams-jars")
    workshop.classes("kafka_streams", os.pathsep.join((f"{jars}/*", f"{workshop.broker_jars()}/*")))


def _flink(ground: Ground, home: Path) -> list[processes.Process]:
    environment = {"PEER_JARS": str(ground.tools / "peers" / "flink-jars"), **_python_path("flink")}
    return [ground.run(home, "flink", [_interpreter(ground, "flink"), str(PEERS / "flink" / "main.py")], environment)]


def _ready_flink(workshop: Workshop) -> None:
    workshop.python("flink")
    workshop.jars("flink", "flink-jars")


def _pathway(ground: Ground, home: Path) -> list[processes.Process]:
    command = [_interpreter(ground, "pathway"), str(PEERS / "pathway" / "main.py")]
    return [ground.run(home, "pathway", command, {"PATHWAY_THREADS": "2", **_python_path("pathway")})]


def _python_of(peer: str) -> Callable[[Workshop], None]:
    def ready(workshop: Workshop) -> None:
        workshop.python(peer)

    return ready


PROJECT, MOVING, USUAL = "tickhouse", "tickhouse-moving", "spark_tumbling"
CONTESTANTS: dict[str, Contestant] = {
    one.name: one
    for one in (
        Contestant(
            PROJECT,
            "this project, three streams at once",
            "statistics, z-scores, higher and lower",
            EXACTLY_ONCE,
            (*_WINDOWS, HIGHER_TOPIC, LOWER_TOPIC),
            _streams("moving", "zscore", "trend"),
            of_project=True,
            to_the_end=True,
        ),
        Contestant(
            MOVING,
            "this project, `moving` alone",
            "statistics",
            EXACTLY_ONCE,
            (MOVING_TOPIC,),
            _streams("moving"),
            of_project=True,
        ),
        Contestant(
            USUAL,
            "Spark, tumbling windows",
            "statistics and z-scores",
            AT_LEAST_ONCE,
            _WINDOWS,
            _spark("spark_tumbling"),
            gives="one result for each window that ends and each symbol, not for each tick: of the contract's results "
            "only those of ticks at the very end of a window, and of these only the windows that end there",
            per_tick=False,
        ),
        Contestant(
            "spark_sliding",
            "Spark, sliding windows, 10 s slide",
            "statistics and z-scores",
            AT_LEAST_ONCE,
            _WINDOWS,
            _spark("spark_sliding"),
            gives="one result every 10 s for each symbol, not for each tick",
            per_tick=False,
        ),
        Contestant(
            "flink",
            "PyFlink, SQL OVER RANGE",
            "statistics and z-scores",
            EXACTLY_ONCE,
            _WINDOWS,
            _flink,
            _ready_flink,
        ),
        Contestant(
            "quixstreams",
            "Quix Streams, stateful function",
            "statistics and z-scores",
            EXACTLY_ONCE,
            _WINDOWS,
            _quix,
            _python_of("quixstreams"),
        ),
        Contestant(
            "bytewax",
            "Bytewax, stateful operator",
            "statistics and z-scores",
            AT_LEAST_ONCE,
            _WINDOWS,
            _bytewax,
            _python_of("bytewax"),
        ),
        Contestant(
            "pathway",
            "Pathway, interval_join",
            "statistics and z-scores",
            AT_LEAST_ONCE,
            _WINDOWS,
            _pathway,
            _python_of("pathway"),
        ),
        Contestant(
            "kafka_streams",
            "Kafka Streams, Processor API",
            "statistics and z-scores",
            EXACTLY_ONCE,
            _WINDOWS,
            _kafka_streams,
            _ready_kafka_streams,
        ),
    )
}
PEER_NAMES = tuple(name for name, one in CONTESTANTS.items() if not one.of_project)


def make_ready(contestants: Mapping[str, Contestant], workshop: Workshop) -> dict[str, str]:
    """Make all ready; returns, for those that cannot be, why."""
    missing = {}
    for name, contestant in contestants.items():
        try:
            contestant.ready(workshop)
        except Unavailable as error:
            missing[name] = str(error)
    return missing
