"""`python -m orchestration.prepare`: what must be said once before streams run in a deployment without `tickhouse up`.

Here: the topics, the addresses for later commands, and the wish that all streams run. Repeating it changes nothing.
Not here: starting anything (Dagster's supervisor sensor does), or choosing addresses (the environment names them).
"""

from __future__ import annotations

import sys

from confluent_kafka import KafkaException

from orchestration import processes
from orchestration.local.broker import TopicMismatch, create_topics
from orchestration.settings import Endpoints, OrchestrationSettings, SettingsError, write_endpoints
from spark_jobs.jobs import JOBS, TOPICS


def prepare(settings: OrchestrationSettings) -> None:
    """Create the topics that are missing, note the addresses, want all streams running.

    Raises TopicMismatch when a topic has another number of partitions, KafkaException when there is no broker.
    """
    create_topics(settings.kafka_bootstrap, TOPICS)
    settings.home.mkdir(parents=True, exist_ok=True)
    write_endpoints(
        settings.home,
        Endpoints(
            kafka_bootstrap=settings.kafka_bootstrap,
            mongo_uri=settings.mongo_uri,
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
    except (SettingsError, TopicMismatch) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KafkaException as error:
        sys.stderr.write(f"the broker does not answer ({error}): is TICKHOUSE_KAFKA_BOOTSTRAP right?\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
