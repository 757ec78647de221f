"""Dagster resources: each gives a domain object that knows nothing of Dagster.

Addresses are looked up when they are used, so that loading the definitions does no network I/O, no connection string is
shown in Dagster's interface, and a code location that was started before the stack finds it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from orchestration.lakehouse.tables import Lakehouse
from orchestration.serving.mongo import MongoStore
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.lag import Topics
from orchestration.supervision.streams import Streams, command_of, silence
from tickhouse.kafka.access import librdkafka_security


class HomeResource(dg.ConfigurableResource[Any]):
    """A home and, where given, addresses that win over its own.

    What is given is shown in Dagster's interface: an address with a password belongs into the environment.
    """

    home: str
    kafka_bootstrap: str | None = None
    mongo_uri: str | None = None
    lakehouse: str | None = None

    def settings(self) -> OrchestrationSettings:
        """The settings of the home. Raises SettingsError naming what is wrong."""
        return OrchestrationSettings.read(
            home=Path(self.home),
            kafka_bootstrap=self.kafka_bootstrap,
            mongo_uri=self.mongo_uri,
            lakehouse=self.lakehouse,
        )


class StreamsResource(HomeResource):
    """The stream jobs. `command`, if given, is run with the job's name as last argument instead of the real job."""

    command: list[str] = Field(default_factory=list)

    def get(self, say: Callable[[str], None] = silence) -> Streams:
        """The streams of the home; `say` is told what is started and stopped as it happens."""
        command = (lambda name: [*self.command, name]) if self.command else command_of
        return Streams(self.settings(), command, say)


class LakehouseResource(HomeResource):
    """The Delta tables."""

    def get(self) -> Lakehouse:
        """The tables of the home."""
        return Lakehouse(self.settings().lakehouse)


class TopicsResource(HomeResource):
    """The Kafka topics."""

    timeout_seconds: float = 2.0

    def get(self) -> Topics:
        """The topics of the home's broker, by a connection that is kept: making one takes longer than asking."""
        settings = self.settings()
        security = tuple(librdkafka_security(settings).items())
        return _topics(settings.kafka_bootstrap, self.timeout_seconds, security)


@cache
def _topics(bootstrap: str, timeout_seconds: float, security: tuple[tuple[str, str], ...]) -> Topics:
    return Topics(bootstrap, timeout_seconds, dict(security))


class MongoResource(HomeResource):
    """The MongoDB collections."""

    timeout_seconds: float = 3.0

    @contextmanager
    def open(self, progress: Callable[[str], None] = silence) -> Iterator[MongoStore]:
        """The collections, for the time of the context; `progress` is told of what is written as it is."""
        store = MongoStore(self.settings().mongo_uri.get_secret_value(), self.timeout_seconds, progress)
        try:
            yield store
        finally:
            store.close()


def build_resources(
    settings: OrchestrationSettings, overrides: Mapping[str, dg.ConfigurableResource[Any]] | None = None
) -> dict[str, dg.ConfigurableResource[Any]]:
    """All resources for the home of `settings`; `overrides` replace them by name."""
    home = str(settings.home)
    resources: dict[str, dg.ConfigurableResource[Any]] = {
        "streams": StreamsResource(home=home),
        "lakehouse": LakehouseResource(home=home),
        "topics": TopicsResource(home=home),
        "mongo": MongoResource(home=home),
    }
    unknown = set(overrides or {}) - set(resources)
    if unknown:
        raise ValueError(f"no such resource: {', '.join(sorted(unknown))}; there are {', '.join(resources)}")
    return resources | dict(overrides or {})
