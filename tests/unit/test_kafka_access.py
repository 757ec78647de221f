"""Reaching brokers that ask for user, password or certificates: what is refused, and what each client is told.

The producer's and the streams' settings have the same names, meaning and refusals, and the orchestration's are the
streams'.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from pydantic import ValidationError

from orchestration.settings import OrchestrationSettings, SettingsError
from producer.__main__ import main
from producer.kafka_access import client_security
from producer.settings import ProducerSettings
from spark_jobs.settings import StreamSettings
from spark_jobs.sinks.kafka import KafkaTarget
from tickhouse.kafka.access import librdkafka_security, refusal_in, spark_security
from tickhouse.kafka.settings import KafkaSettings

PASSWORD = "Pl4nted7d1f"  # pragma: allowlist secret
PROTOCOL = "kafka_security_protocol"
SASL = {"SECURITY_PROTOCOL": "SASL_SSL", "USERNAME": "anna", "PASSWORD": PASSWORD}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TICKHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def use(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"TICKHOUSE_KAFKA_{name}", value)


def test_all_packages_have_the_same_settings() -> None:
    assert all(issubclass(each, KafkaSettings) for each in (OrchestrationSettings, ProducerSettings, StreamSettings))


REFUSED = [
    ({"SECURITY_PROTOCOL": "TLS"}, PROTOCOL, "SASL_SSL"),
    ({"SASL_MECHANISM": "GSSAPI"}, "kafka_sasl_mechanism", "SCRAM-SHA-512"),
    ({"SECURITY_PROTOCOL": "SASL_SSL"}, "kafka_username", "needed with"),
    ({"SECURITY_PROTOCOL": "SASL_SSL", "USERNAME": "anna"}, "kafka_password", "needed with"),
    ({"USERNAME": "anna"}, "kafka_username", "SASL_SSL"),
    ({"SECURITY_PROTOCOL": "SSL", "PASSWORD": PASSWORD}, "kafka_password", "SASL_SSL"),
    (SASL | {"PASSWORD": f"{PASSWORD}\n"}, "kafka_password", "printable"),
    (SASL | {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "BOOTSTRAP": "kafka:9092"}, PROTOCOL, "SASL_SSL"),
    (SASL | {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "BOOTSTRAP": "127.0.0.1:1,10.0.0.1:2"}, PROTOCOL, ""),
    (SASL | {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "BOOTSTRAP": "127.0.0.1.evil.example:1"}, PROTOCOL, ""),
    (SASL | {"CA_FILE": "/not/there.pem"}, "kafka_ca_file", "No such file"),
    (SASL | {"CA_FILE": "/etc/hostname"}, "kafka_ca_file", "PEM"),
    ({"CA_FILE": "/etc/hostname"}, "kafka_ca_file", "SASL_SSL or SSL"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "field", "told"), REFUSED)
@pytest.mark.parametrize("package", [ProducerSettings, StreamSettings])
def test_what_cannot_be_right_is_refused_without_showing_the_password(
    monkeypatch: pytest.MonkeyPatch,
    package: type[ProducerSettings] | type[StreamSettings],
    given: dict[str, str],
    field: str,
    told: str,
) -> None:
    use(monkeypatch, given)
    with pytest.raises(ValidationError) as caught:
        package()
    assert field in [problem["loc"][0] for problem in caught.value.errors()]
    assert told in str(caught.value)
    assert PASSWORD not in str(caught.value)
    with pytest.raises(SettingsError, match=f"TICKHOUSE_{field.upper()}") as sentence:
        OrchestrationSettings.read()
    assert PASSWORD not in str(sentence.value)


def test_the_producer_names_the_variable_and_not_the_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, SASL | {"PASSWORD": f"{PASSWORD}\n"})
    with caplog.at_level(logging.ERROR):
        assert main() == 2
    assert "TICKHOUSE_KAFKA_PASSWORD: must have printable characters only" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_stream_job_names_the_variable_and_not_the_password() -> None:
    environment = {f"TICKHOUSE_KAFKA_{name}": value for name, value in (SASL | {"PASSWORD": f"{PASSWORD}\n"}).items()}
    command = [sys.executable, "-m", "spark_jobs", "moving"]
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "TICKHOUSE_KAFKA_PASSWORD: must have printable characters only\n"


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:9092", "localhost:1,[::1]:2", "127.9.9.9:1"])
def test_unencrypted_passwords_stay_on_the_machine(monkeypatch: pytest.MonkeyPatch, bootstrap: str) -> None:
    use(monkeypatch, SASL | {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "BOOTSTRAP": bootstrap})
    assert StreamSettings().kafka_bootstrap == ProducerSettings().kafka_bootstrap == bootstrap


def test_a_broker_that_asks_for_nothing_is_told_nothing() -> None:
    assert client_security(ProducerSettings()) == {}
    assert librdkafka_security(StreamSettings()) == spark_security(StreamSettings()) == {}


def test_each_client_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch, ca_file: Path) -> None:
    use(monkeypatch, SASL | {"CA_FILE": str(ca_file), "SASL_MECHANISM": "SCRAM-SHA-256", "PASSWORD": 'a"b\\c'})
    assert client_security(ProducerSettings()) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "anna",
        "sasl_plain_password": 'a"b\\c',
        "ssl_cafile": str(ca_file),
    }
    assert librdkafka_security(StreamSettings()) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-256",
        "sasl.username": "anna",
        "sasl.password": 'a"b\\c',
        "ssl.ca.location": str(ca_file),
    }
    told = spark_security(StreamSettings())
    module, required, *arguments = told.pop("kafka.sasl.jaas.config").split()
    assert (module.split(".")[-1], required) == ("ScramLoginModule", "required")
    assert arguments == ['username="anna"', 'password="a\\"b\\\\c";']  # pragma: allowlist secret
    assert told == {
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": "SCRAM-SHA-256",
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": str(ca_file),
    }


def test_a_certificate_may_be_all_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {"SECURITY_PROTOCOL": "SSL"})
    assert librdkafka_security(StreamSettings()) == {"security.protocol": "SSL"}
    assert spark_security(StreamSettings()) == {"kafka.security.protocol": "SSL"}


def test_a_plain_password_has_another_module(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SASL | {"SASL_MECHANISM": "PLAIN"})
    assert "plain.PlainLoginModule required" in spark_security(StreamSettings())["kafka.sasl.jaas.config"]


def test_what_is_sent_to_the_workers_does_not_show_the_password() -> None:
    target = KafkaTarget(("a",), {"bootstrap.servers": "b:1", "sasl.password": PASSWORD})
    assert PASSWORD not in repr(target)
    assert pickle.loads(pickle.dumps(target)) == target


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        (
            "at x\nCaused by: org.apache.kafka.common.errors.SaslAuthenticationException: invalid credentials\nat y",
            "lets nobody in (invalid credentials): check TICKHOUSE_KAFKA_USERNAME, TICKHOUSE_KAFKA_PASSWORD",
        ),
        (
            "org.apache.kafka.common.errors.SslAuthenticationException: SSL handshake failed",
            "lets nobody in (SSL handshake failed): check TICKHOUSE_KAFKA_SECURITY_PROTOCOL",
        ),
    ],
)
def test_a_refusal_is_found_in_what_spark_says(trace: str, told: str) -> None:
    assert told in str(refusal_in(trace))
    assert refusal_in("java.lang.RuntimeException: disk full") is None
