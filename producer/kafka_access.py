"""What kafka-python calls the settings by which the producer reaches the brokers."""

from __future__ import annotations

from tickhouse.kafka.settings import KafkaSettings


def client_security(settings: KafkaSettings) -> dict[str, str]:
    """The arguments of kafka-python's clients beside `bootstrap_servers`; none for brokers that ask for nothing."""
    options: dict[str, str] = {}
    if settings.kafka_security_protocol != "PLAINTEXT":
        options["security_protocol"] = settings.kafka_security_protocol
    if settings.kafka_ca_file is not None:
        options["ssl_cafile"] = str(settings.kafka_ca_file)
    if settings.kafka_security_protocol.startswith("SASL_"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_username
        options["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return options
