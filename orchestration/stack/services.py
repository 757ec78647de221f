"""The local services that `tickhouse up` keeps running, as data: their commands, needs and signs of life."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestration.local import appcds
from orchestration.local.artifacts import kafka_jars, mongod_binary
from orchestration.local.broker import Broker
from orchestration.local.java import Java
from orchestration.local.mongod import Mongod
from orchestration.local.ports import free_port
from orchestration.settings import OrchestrationSettings
from tickhouse import environment
from tickhouse.environment import PREFIX, Need

_HOST = "127.0.0.1"
_DAGSTER_YAML = """# Written at each start; changes are lost.
telemetry:
  enabled: false
# No invitation before the first look at the streams.
nux:
  enabled: false
# Runs are few and short, and a stream that is down should not wait for the queue to be looked at.
run_coordinator:
  module: dagster._core.run_coordinator
  class: DefaultRunCoordinator
run_monitoring:
  enabled: true
  poll_interval_seconds: 20
  start_timeout_seconds: 120
sensors:
  use_threads: true
  num_workers: 4
retention:
  sensor:
    purge_after_days: {skipped: 1, success: 3, failure: 7, started: -1}
"""
_WORKSPACE_YAML = """# Written at each start; changes are lost.
load_from:
  - grpc_server: {{host: {host}, port: {port}, location_name: tickhouse}}
"""


@dataclass(frozen=True)
class Service:
    """One local process. `needs`: the services without which it cannot start."""

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    finite: bool = False
    """Whether it may come to an end by itself, and then says so in its heartbeat."""
    outside: tuple[Need, ...] = ()
    """What it gets of the caller's environment beyond what every program gets."""


@dataclass(frozen=True)
class Ports:
    """The ports of 127.0.0.1 that a stack uses; `ui` and `board` are None without pages."""

    kafka: int
    controller: int
    mongo: int
    code_server: int
    simulator: int
    ui: int | None
    board: int | None


def choose_ports(settings: OrchestrationSettings, *, ui: bool) -> Ports:
    """The ports that the settings name; free ones where they name none, and for all if the UI's is 0."""
    taken: set[int] = set()

    def choose(wanted: int) -> int:
        port = wanted if wanted and settings.port else free_port(taken)
        taken.add(port)
        return port

    return Ports(
        kafka=choose(settings.kafka_port),
        mongo=choose(settings.mongo_port),
        ui=choose(settings.port) if ui else None,
        board=choose(settings.board_port) if ui else None,
        controller=choose(0),
        code_server=choose(0),
        simulator=choose(0),
    )


def child_environment(
    settings: OrchestrationSettings,
    java: Java,
    binance_url: str | None,
    given: Mapping[str, str],
    outside: tuple[Need, ...] = (),
) -> dict[str, str]:
    """The environment of a service: what it may have of the caller's, `given`, and all that has been decided."""
    decided = {
        "home": str(settings.home),
        "tools": str(settings.tools),
        "jars": str(settings.jars),
        "kafka_bootstrap": settings.kafka_bootstrap,
        "kafka_security_protocol": settings.kafka_security_protocol,
        "kafka_username": settings.kafka_username,
        "kafka_password": settings.kafka_password.get_secret_value(),
        "mongo_uri": settings.mongo_uri.get_secret_value(),
        "lakehouse": settings.lakehouse,
        "checkpoints": settings.checkpoints,
        "symbols": ",".join(settings.symbols),
        "speed": settings.speed,
        "step_ms": str(settings.step_ms),
        "replay_timestamps": settings.replay_timestamps,
        "replay_name": settings.replay_name,
        "replay_symbol": settings.replay_symbol,
        "replay_sort": str(settings.replay_sort),
        "lateness_seconds": str(settings.lateness_seconds),
        "durable": str(settings.durable),
        "source": settings.source if settings.source.startswith("replay:") else "binance",
        "binance_url": binance_url or "",
    }
    scratch = environment.scratch_folder(settings.home)
    account = environment.find_account(given, scratch)
    # Credentials of a cloud are nothing for programs whose tables are on this machine.
    needs = tuple(need for need in outside if need != "cloud" or settings.in_the_cloud)
    variables = {
        **environment.child_environment(given, scratch, account, needs),
        "JAVA_HOME": str(java.path),
        "DAGSTER_HOME": str(settings.home / "dagster"),
        **{f"{PREFIX}{name.upper()}": value for name, value in decided.items()},
    }
    variables.pop(f"{PREFIX}KAFKA_CA_FILE", None)  # the broker of the stack asks for nothing
    return variables


def broker(settings: OrchestrationSettings, ports: Ports) -> Broker:
    """The broker of a home, as these ports have it."""
    return Broker(settings.home / "kafka", ports.kafka, ports.controller, settings.durable)


def kafka(settings: OrchestrationSettings, broker: Broker, java: Java) -> Service:
    """The broker; writes its configuration, and formats its storage the first time."""
    jars = kafka_jars(settings.tools)
    broker.prepare(java, jars)
    return Service("kafka", broker.command(java, jars, appcds.broker_options(settings.tools, java)))


def mongod(settings: OrchestrationSettings, ports: Ports) -> Service:
    """The MongoDB server."""
    server = Mongod(settings.home / "mongo", ports.mongo)
    return Service("mongod", server.command(mongod_binary(settings.tools, os.environ)))


def simulator(ports: Ports) -> Service:
    """The exchange that stands in for Binance."""
    command = [sys.executable, "-m", "producer.simulator", "--port", str(ports.simulator)]
    return Service("simulator", command)


def producer(needs: tuple[str, ...]) -> Service:
    """From the exchange, or a recording, to the topic."""
    return Service("producer", [sys.executable, "-m", "producer"], needs, finite=True, outside=("proxies",))


def board(port: int) -> Service:
    """The page that shows how prices and streams are."""
    return Service("board", [sys.executable, "-m", "orchestration.board", "--port", str(port)], outside=("cloud",))


def dagster(settings: OrchestrationSettings, ports: Ports) -> list[Service]:
    """Code server, daemon and, with a port for it, webserver; writes their configuration.

    One code server serves both others, so that the definitions are loaded once.
    """
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text(_DAGSTER_YAML)
    workspace = folder / "workspace.yaml"
    workspace.write_text(_WORKSPACE_YAML.format(host=_HOST, port=ports.code_server))
    services = [
        Service(
            "code-server",
            [sys.executable, "-m", "orchestration.stack.code_server", str(ports.code_server)],
            outside=("proxies", "cloud"),  # the webhook, and the tables
        ),
        Service(
            "daemon",
            [sys.executable, "-m", "orchestration.stack.daemon", "run", "--workspace", str(workspace)],
            needs=("code-server",),
        ),
    ]
    if ports.ui is not None:
        command = [_script("dagster-webserver"), "--host", _HOST, "--port", str(ports.ui)]
        command += ["--workspace", str(workspace)]
        services.append(Service("webserver", command, needs=("code-server",)))
    return services


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
