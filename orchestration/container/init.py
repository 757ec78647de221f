"""`python -m orchestration.container.init`: what must be said once before streams run in a deployment without
`tickhouse up`.

Repeating it changes nothing.
"""

from __future__ import annotations

import sys

from confluent_kafka import KafkaException

from orchestration.local import processes
from orchestration.local.broker import NotReady, TopicMismatch, create_topics
from orchestration.settings import Endpoints, OrchestrationSettings, SettingsError, write_endpoints
from orchestration.supervision.lag import KafkaAway, KafkaRefuses, Topics
from tickhouse.contract.topology import JOBS, TOPICS
from tickhouse.kafka.access import librdkafka_security

_ANSWER_SECONDS = 10.0


def prepare(settings: OrchestrationSettings) -> None:
    """Create the topics that are missing, note the addresses, want all streams running.

    Raises KafkaAway when the broker does not answer or refuses, TopicMismatch when a topic has another number of
    partitions, KafkaException when one cannot be created.
    """
    security = librdkafka_security(settings)
    Topics(settings.kafka_bootstrap, _ANSWER_SECONDS, security).end_offsets(TOPICS)
    create_topics(settings.kafka_bootstrap, TOPICS, security=security)
    settings.home.mkdir(parents=True, exist_ok=True)
    write_endpoints(
        settings.home,
        Endpoints(
            kafka_bootstrap=settings.kafka_bootstrap,
            mongo_uri=settings.mongo_uri.get_secret_value(),
            lakehouse=settings.lakehouse,
            checkpoints=settings.checkpoints,
            source=settings.source,
            symbols=settings.symbols,
            speed=settings.speed,
            lateness_seconds=settings.lateness_seconds,
        ),
    )
    for name in JOBS:
        processes.set_wanted(settings.home, name, "running")


def main() -> int:
    """Prepare for the settings in the environment; returns the exit code."""
    try:
        prepare(OrchestrationSettings.read())
    except KafkaRefuses as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KafkaAway as error:
        sys.stderr.write(f"{error}: is TICKHOUSE_KAFKA_BOOTSTRAP right?\n")
        return 1
    except (SettingsError, TopicMismatch, NotReady) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KafkaException as error:
        sys.stderr.write(f"the topics cannot be created: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
