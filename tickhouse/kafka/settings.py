"""How the brokers are reached: settings that all packages share."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

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


def _is_loopback(address: str) -> bool:
    try:
        host = urlsplit(f"//{address.strip()}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
