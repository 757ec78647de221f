"""What Spark and librdkafka call the settings by which brokers are reached, and what a refusal of theirs means."""

from __future__ import annotations

import re

from confluent_kafka import KafkaError

from tickhouse.kafka.settings import KafkaSettings


def librdkafka_security(settings: KafkaSettings) -> dict[str, str]:
    """The settings of librdkafka that come with `bootstrap.servers`; none for brokers that ask for nothing."""
    options: dict[str, str] = {}
    if settings.kafka_security_protocol != "PLAINTEXT":
        options["security.protocol"] = settings.kafka_security_protocol
    if settings.kafka_ca_file is not None:
        options["ssl.ca.location"] = str(settings.kafka_ca_file)
    if settings.kafka_security_protocol.startswith("SASL_"):
        options["sasl.mechanisms"] = settings.kafka_sasl_mechanism
        options["sasl.username"] = settings.kafka_username
        options["sasl.password"] = settings.kafka_password.get_secret_value()
    return options


def spark_security(settings: KafkaSettings) -> dict[str, str]:
    """The options of Spark's Kafka source that come with `kafka.bootstrap.servers`; none where nothing is asked for."""
    options: dict[str, str] = {}
    if settings.kafka_security_protocol != "PLAINTEXT":
        options["kafka.security.protocol"] = settings.kafka_security_protocol
    if settings.kafka_ca_file is not None:
        options["kafka.ssl.truststore.type"] = "PEM"
        options["kafka.ssl.truststore.location"] = str(settings.kafka_ca_file)
    if settings.kafka_security_protocol.startswith("SASL_"):
        options["kafka.sasl.mechanism"] = settings.kafka_sasl_mechanism
        options["kafka.sasl.jaas.config"] = _jaas(settings)
    return options


_USER = "TICKHOUSE_KAFKA_USERNAME, TICKHOUSE_KAFKA_PASSWORD and TICKHOUSE_KAFKA_SASL_MECHANISM"
_ENCRYPTION = "TICKHOUSE_KAFKA_SECURITY_PROTOCOL and TICKHOUSE_KAFKA_CA_FILE"
_REFUSALS = {"SaslAuthenticationException": _USER, "SslAuthenticationException": _ENCRYPTION}
"""The exceptions of Kafka's Java client that say why it is not let in, and what to check."""
_REFUSAL_CODES = {KafkaError._AUTHENTICATION: _USER, KafkaError._SSL: _ENCRYPTION}
"""The same for librdkafka."""


class RefusalListener:
    """An `error_cb` for librdkafka, which tells why nobody is let in to it alone, and the caller only of a time-out."""

    def __init__(self) -> None:
        self.sentence: str | None = None
        """Why, and what to check; None as long as nobody was refused."""

    def __call__(self, error: KafkaError) -> None:
        if error.code() in _REFUSAL_CODES:
            self.sentence = f"Kafka lets nobody in ({error.str()}): check {_REFUSAL_CODES[error.code()]}"


def refusal_in(trace: str) -> str | None:
    """Why the brokers let nobody in and what to check, if that is what an error's text is about."""
    for exception, settings in _REFUSALS.items():
        found = re.search(rf"{exception}: (.*)", trace)
        if found:
            return f"Kafka lets nobody in ({found[1].strip()}): check {settings}"
    return None


def _jaas(settings: KafkaSettings) -> str:
    kind = "plain.Plain" if settings.kafka_sasl_mechanism == "PLAIN" else "scram.Scram"
    module = f"org.apache.kafka.common.security.{kind}LoginModule"
    password = settings.kafka_password.get_secret_value()
    return f"{module} required username={_quoted(settings.kafka_username)} password={_quoted(password)};"


def _quoted(text: str) -> str:
    """As Java's JAAS reader takes a string: in quotes, in which a backslash stands before quotes and backslashes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
