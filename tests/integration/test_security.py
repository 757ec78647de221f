"""User, password and TLS against a real broker and a real mongod that ask for them, with a password that is looked for.

One broker, one mongod and two starts of Spark serve all of it. What was planted must not be found afterwards in any
file of the home, nor meanwhile in the arguments of any process.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import dagster as dg
import psutil
import pymongo
import pytest
import trustme
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from orchestration.definitions import build_definitions
from orchestration.local import broker as kafka
from orchestration.local import mongod, processes
from orchestration.local.artifacts import kafka_jars, mongod_binary
from orchestration.local.java import Java
from orchestration.local.ports import free_port
from orchestration.monitoring import status
from orchestration.serving.mongo import DATABASE
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.lag import KafkaAway, KafkaRefuses, Topics
from tests.conftest import READY_SECONDS, stop_all
from tests.zscore_tables import append, rows
from tickhouse.contract.topology import TOPICS
from tickhouse.kafka.access import librdkafka_security

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.whole_machine]

USER = 'tick "h\\'
PLANTED = "Pl4nted7d1f"
PASSWORD = f"{PLANTED} \"q\\' ;=,%$@/"
"""With all that some configuration language gives a meaning."""
WRONG = f"{PLANTED}-wrong"
TICKS = 120
_LISTENERS = """
listeners=PLAINTEXT://127.0.0.1:{admin},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{admin},SASL_SSL://127.0.0.1:{secure}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={certificate}
"""


class Secured(NamedTuple):
    """A home with a broker and a mongod that let in one user each."""

    home: Path
    tools: Path
    bootstrap: str
    mongo_address: str
    ca_file: Path
    wrong_ca_file: Path

    def mongo_uri(self, password: str) -> str:
        """The connection string with user and TLS."""
        user = f"{quote(USER, safe='')}:{quote(password, safe='')}"
        return f"mongodb://{user}@{self.mongo_address}/?journal=true&authSource=admin&tls=true&tlsCAFile={self.ca_file}"

    def environment(self, password: str = PASSWORD, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """The settings, as a user gives them."""
        settings = {
            "HOME": str(self.home),
            "TOOLS": str(self.tools),
            "KAFKA_BOOTSTRAP": self.bootstrap,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_USERNAME": USER,
            "KAFKA_PASSWORD": password,
            "KAFKA_CA_FILE": str(self.ca_file),
            "MONGO_URI": self.mongo_uri(password),
        }
        return {f"TICKHOUSE_{name}": value for name, value in settings.items()}


@pytest.fixture(scope="module")
def secured(
    tools: Path, java: Java, tmp_path_factory: pytest.TempPathFactory, guard: Callable[[Path], None]
) -> Iterator[Secured]:
    home = tmp_path_factory.mktemp("secured")
    guard(home)
    authority, certificate = trustme.CA(), home / "server.pem"
    issued = authority.issue_cert("127.0.0.1")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    certificate.write_bytes(  # Java takes no other form of key
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + b"".join(part.bytes() for part in issued.cert_chain_pems)
    )
    authority.cert_pem.write_to_path(home / "ca.pem")
    trustme.CA().cert_pem.write_to_path(home / "wrong-ca.pem")
    node, secure = kafka.Broker(home / "kafka", free_port(), free_port()), free_port()
    server = mongod.Mongod(home / "mongo", free_port())
    try:
        command = server.command(mongod_binary(tools, os.environ))
        command += ["--auth", "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificate)]
        processes.start(home, "mongod", command, os.environ)
        node.prepare(java, kafka_jars(tools))
        with (node.directory / "server.properties").open("a") as properties:
            ports = {"admin": node.port, "secure": secure, "controller": node.controller_port}
            properties.write(_LISTENERS.format(**ports, certificate=certificate))
        broker = processes.start(home, "kafka", node.command(java, kafka_jars(tools)), os.environ)
        found = Secured(
            home,
            tools,
            f"127.0.0.1:{secure}",
            f"127.0.0.1:{server.port}",
            home / "ca.pem",
            home / "wrong-ca.pem",
        )
        kafka.wait_ready(node.bootstrap, lambda: processes.alive(broker), READY_SECONDS)
        make_users(node.bootstrap, found)
        yield found
    finally:
        stop_all(home)


def make_users(plain_bootstrap: str, secured: Secured) -> None:
    """A user in the broker, for both mechanisms, and the first user in mongod, which only loopback may make."""
    admin = AdminClient({"bootstrap.servers": plain_bootstrap})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        update = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4_096), PASSWORD.encode())
        for made in admin.alter_user_scram_credentials([update]).values():
            made.result(timeout=30)
    address = f"mongodb://{secured.mongo_address}/?tls=true&tlsCAFile={secured.ca_file}"
    with pymongo.MongoClient[dict[str, Any]](address) as client:
        client.admin.command("createUser", USER, pwd=PASSWORD, roles=["readWriteAnyDatabase"])


@pytest.fixture
def in_arguments() -> Iterator[set[str]]:
    """The commands with something planted in them that any process of this machine has had during the test."""
    found: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            for process in psutil.process_iter(["cmdline"]):
                command = " ".join(process.info["cmdline"] or ())
                if PLANTED in command:
                    found.add(command)

    watcher = threading.Thread(target=look)
    watcher.start()
    yield found
    done.set()
    watcher.join()


@pytest.fixture
def instance(secured: Secured) -> Iterator[dg.DagsterInstance]:
    """An instance that keeps its runs, events and logs in the home."""
    folder = secured.home / "dagster"
    folder.mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(str(folder)) as opened:
        yield opened


def files_with_planted(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]


def run(secured: Secured, name: str, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a part to its end; its exit code and its output."""
    log = secured.home / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            timeout=60,
            check=False,
        )
    return ended.returncode, log.read_bytes()[begin:].decode()


def recording(path: Path) -> list[str]:
    """A tick a second; returns the timestamps of those whose results are final at the end."""
    start = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(minutes=10)
    times = [start + datetime.timedelta(seconds=tick) for tick in range(TICKS)]
    lines = [
        json.dumps({"symbol": "SAFEUSDT", "price": 100 + tick % 7, "timestamp": time.isoformat()})
        for tick, time in enumerate(times)
    ]
    path.write_text("\n".join(lines) + "\n")
    return [time.strftime("%Y-%m-%dT%H:%M:%S.000Z") for time in times[:-10]]


def published(secured: Secured, topic: str) -> list[str]:
    """The timestamps of all committed messages of a topic, read as a user with SCRAM-SHA-256."""
    settings = OrchestrationSettings.read(of_running_stack=False)
    consumer = Consumer(
        {
            "bootstrap.servers": secured.bootstrap,
            **librdkafka_security(settings),
            "sasl.mechanisms": "SCRAM-SHA-256",
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    found: list[str] = []
    try:
        for _ in range(30):
            for message in consumer.consume(10_000, timeout=1):
                assert message.error() is None
                found.append(json.loads(message.value() or b"")["timestamp"])
            if len(found) >= TICKS - 10:
                break
        return found
    finally:
        consumer.close()


def materialise(secured: Secured, instance: dg.DagsterInstance, *assets: str, **config: Any) -> Any:
    loaded = build_definitions(OrchestrationSettings.read(home=secured.home))
    return loaded.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        run_config={"ops": config},
        raise_on_error=False,
    )


def failure_of(result: Any) -> str:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    return str(failed.step_failure_data.error_display_string)


def looked(tells: Callable[[status.Status], bool]) -> status.Status:
    """The status once it tells something, or the last: on a busy machine a part may not answer in its short time."""
    for _ in range(10):
        seen = status.collect(OrchestrationSettings.read())
        if tells(seen):
            break
    return seen


AVAILABLE: dict[str, Any] = {"moving_stream": {"config": {"trigger": "available_now"}}}


def test_everything_works_with_user_and_tls_and_no_password_is_left_anywhere(
    secured: Secured, instance: dg.DagsterInstance, in_arguments: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in secured.environment().items():
        monkeypatch.setenv(name, value)
    code, output = run(secured, "prepare", ["orchestration.container.init"], {})
    assert code == 0, output
    file = secured.home / "ticks.jsonl"
    expected = recording(file)
    for _ in range(2):  # the second looks for what the first has sent, and sends nothing again
        code, output = run(
            secured, "producer", ["producer"], {"TICKHOUSE_SOURCE": f"replay:{file}", "TICKHOUSE_SPEED": "max"}
        )
        assert code == 0, output
    settings = OrchestrationSettings.read()
    ends = Topics(secured.bootstrap, 5, librdkafka_security(settings)).end_offsets(TOPICS)
    assert sum(ends["btc-price"].values()) == TICKS

    assert materialise(secured, instance, "moving_stats", **AVAILABLE).success
    assert sorted(published(secured, "btc-price-moving")) == expected
    event = instance.get_latest_materialization_event(dg.AssetKey("moving_stats"))
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.metadata["dagster/row_count"].value == len(expected)

    append(secured.home / "lakehouse", rows(range(12)))
    assert materialise(secured, instance, *(f"zscore_{window}" for window in ("30s", "1h"))).success
    with pymongo.MongoClient[dict[str, Any]](secured.mongo_uri(PASSWORD)) as client:
        assert client[DATABASE]["btc-price-zscore-1h"].count_documents({}) == 12
    seen = looked(lambda seen: not seen.problems)
    assert seen.problems == []
    assert seen.load["btc-price-zscore-30s"].documents == 12
    assert PLANTED not in seen.model_dump_json()
    assert PLANTED not in repr(settings)
    assert "***" not in (secured.home / "endpoints.json").read_text()
    assert in_arguments == set()
    assert files_with_planted(secured.home) == []


def test_a_wrong_password_is_told_by_every_part_and_not_shown(
    secured: Secured, instance: dg.DagsterInstance, in_arguments: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in secured.environment(WRONG).items():
        monkeypatch.setenv(name, value)
    file = secured.home / "wrong.jsonl"
    recording(file)
    # Its client does not tell a refusal from silence.
    once = {"TICKHOUSE_SOURCE": f"replay:{file}", "TICKHOUSE_BROKER_WAIT_SECONDS": "3"}
    code, output = run(secured, "producer", ["producer"], once)
    assert code == 1
    assert "no Kafka broker answers" in output and "_PASSWORD" in output
    assert "_PASSWORD" in str((processes.read_heartbeat(secured.home, "producer") or {})["error"])
    assert PLANTED not in output
    code, output = run(secured, "prepare", ["orchestration.container.init"], {})
    assert code == 1
    assert "lets nobody in" in output and "TICKHOUSE_KAFKA_PASSWORD" in output
    problems = "\n".join(looked(lambda seen: "does not answer" not in str(seen.problems)).problems)
    assert "lets nobody in" in problems and "TICKHOUSE_KAFKA_PASSWORD" in problems
    assert "refuses (Authentication failed" in problems and "TICKHOUSE_MONGO_URI" in problems

    append(secured.home / "lakehouse", rows(range(12, 14)))
    load = failure_of(materialise(secured, instance, "zscore_30s"))
    assert "MongoDB refuses (Authentication failed" in load and "TICKHOUSE_MONGO_URI" in load
    stream = failure_of(materialise(secured, instance, "moving_stats", **AVAILABLE))
    assert "TICKHOUSE_KAFKA_PASSWORD" in stream
    assert PLANTED not in output + problems + load + stream
    assert in_arguments == set()
    assert files_with_planted(secured.home) == []


def test_a_broker_with_the_certificate_of_an_unknown_authority_is_not_believed(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = secured.environment() | {"TICKHOUSE_KAFKA_CA_FILE": str(secured.wrong_ca_file)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = OrchestrationSettings.read(of_running_stack=False)
    with pytest.raises(KafkaRefuses, match=r"certificate verify failed.*TICKHOUSE_KAFKA_CA_FILE"):
        Topics(secured.bootstrap, 5, librdkafka_security(settings)).end_offsets(TOPICS)
    recording = secured.home / "one-tick.jsonl"
    recording.write_text('{"symbol":"BTCUSDT","price":1,"timestamp":"2025-05-08T00:00:00Z"}\n')
    code, output = run(
        secured,
        "producer",
        ["producer"],
        {"TICKHOUSE_SOURCE": f"replay:{recording}", "TICKHOUSE_BROKER_WAIT_SECONDS": "3"},
    )
    assert code == 1
    assert "_CA_FILE" in output
    assert PLANTED not in output


def test_without_a_user_nobody_is_let_in(secured: Secured) -> None:
    with pytest.raises(KafkaAway):
        security = {"security.protocol": "SSL", "ssl.ca.location": str(secured.ca_file)}
        Topics(secured.bootstrap, 5, security).end_offsets(TOPICS)
