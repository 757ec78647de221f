"""Reaching the Kafka brokers: where they are, as whom, and what Spark and librdkafka call that.

The producer has settings of the same names for its own client.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from confluent_kafka import KafkaError
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from tickhouse.settings import OptionalPathSetting, Settings, absolute


class KafkaSettings(Settings):
    """What it takes to reach the brokers. Each field is validated with those before it: the order matters."""

    # An error would otherwise be told with the value, which may be the password.
    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", hide_input_in_errors=True, use_attribute_docstrings=True)

    kafka_bootstrap: str = "127.0.0.1:9092"
    """The brokers to begin with, `HOST:PORT`, separated by commas."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """SSL: encrypted, the broker proves who it is. SASL: user and password are asked for."""
    kafka_sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = "SCRAM-SHA-512"
    """How user and password are shown to the brokers."""
    kafka_username: str = Field("", validate_default=True)
    """As whom, where the protocol is one with SASL; empty otherwise."""
    kafka_password: SecretStr = Field(SecretStr(""), validate_default=True)
    """The password of that user."""
    kafka_ca_file: OptionalPathSetting = None
    """PEM file of the authorities whose certificates are believed; those of the system when left out."""

    @field_validator("kafka_security_protocol")
    @classmethod
    def _encrypted_on_networks(cls, value: str, info: ValidationInfo) -> str:
        bootstrap = info.data.get("kafka_bootstrap", "")
        if value == "SASL_PLAINTEXT" and not all(_is_loopback(address) for address in bootstrap.split(",")):
            raise ValueError("must be SASL_SSL for brokers on other machines: a password is not sent unencrypted")
        return value

    @field_validator("kafka_username", "kafka_password")
    @classmethod
    def _given_if_asked_for(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        protocol = info.data.get("kafka_security_protocol")
        if protocol is None:
            return value  # wrong itself, and said to be
        if protocol.startswith("SASL_") and not text:
            raise ValueError(f"is needed with TICKHOUSE_KAFKA_SECURITY_PROTOCOL={protocol}")
        if text and not protocol.startswith("SASL_"):
            raise ValueError(f"needs TICKHOUSE_KAFKA_SECURITY_PROTOCOL=SASL_SSL, and that is {protocol}")
        if not text.isprintable():
            raise ValueError("must have printable characters only")
        return value

    @field_validator("kafka_ca_file")
    @classmethod
    def _certificates(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("kafka_security_protocol")
        if value is None or protocol is None:
            return value
        if not protocol.endswith("SSL"):
            raise ValueError(f"needs TICKHOUSE_KAFKA_SECURITY_PROTOCOL=SASL_SSL or SSL, and that is {protocol}")
        value = absolute(value)
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:  # ssl.SSLError, which says what is no certificate, is one
            raise ValueError(f"is no readable PEM file of certificates: {error.strerror or error}") from error
        return value


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


def _is_loopback(address: str) -> bool:
    try:
        host = urlsplit(f"//{address.strip()}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
