"""Settings of the stream jobs, read once from `TICKHOUSE_…` environment variables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tickhouse.kafka.settings import KafkaSettings
from tickhouse.settings import LocationSetting, OptionalPathSetting, PathSetting


def as_spark_reads(options: Sequence[str]) -> str:
    """Options of a JVM as one text, from which Spark gets them back."""
    return " ".join('"' + re.sub(r'(["\\])', r"\\\1", option) + '"' for option in options)


class StreamSettings(KafkaSettings):
    """What a stream job needs to know. Raises pydantic's ValidationError naming what is wrong."""

    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_")

    home: PathSetting = Path(".tickhouse")
    """Folder for heartbeats, and for tables and checkpoints unless these are given as URIs."""
    lakehouse: LocationSetting = Field("", validate_default=False)
    """URI of the folder of the Delta tables: any that Spark can write; under the home when left out."""
    checkpoints: LocationSetting = Field("", validate_default=False)
    """URI of the folder of the checkpoints; under the home when left out."""
    lateness_seconds: float = Field(10.0, ge=0, le=3_600)
    """How far behind a symbol's largest timestamp a tick may be."""
    durable: bool = False
    """Whether checkpoints and commits to Delta are forced to disk before they count, lest a power cut takes them."""
    trigger: Literal["continuous", "available_now"] = "continuous"
    """`continuous` until it is stopped, or `available_now`: what the topics hold at the start, and then end."""
    trigger_interval_seconds: float = Field(0.5, ge=0)
    """Least time from the start of one micro-batch to the next, on the way from ticks to z-scores; where there are new
    statistics, `zscore` does not wait for it."""
    trend_interval_seconds: float = Field(2.0, ge=0)
    """The same for the times to the next higher and lower price, of which many take 20 s to be certain."""
    archive_interval_seconds: float = Field(20.0, ge=0)
    """The same for what is written to Delta, where each micro-batch leaves a file."""
    max_offsets_per_trigger: int = Field(200_000, ge=1_000)
    """Largest micro-batch, in messages."""
    archive_max_offsets_per_trigger: int = Field(2_000_000, ge=1_000)
    """The same for what is written to Delta: with its interval, the rate at which a backlog can be worked off."""
    state_partitions: int = Field(1, ge=1, le=1_000)
    """Partitions of the state, and so tasks of a micro-batch; fixed for the life of a checkpoint."""
    spark_master: str = "local[2,3]"
    """Two tasks at once, each tried three times: a worker that is killed then costs a task, not the stream."""
    driver_memory: str = "1g"
    """Largest heap of the driver's JVM, as Java writes it."""
    driver_java_options: str = ""
    """Further options of the driver's JVM, separated by spaces."""
    spark_conf_dir: OptionalPathSetting = None
    """Folder with the `spark-defaults.conf` of a cluster, and a `core-site.xml` where the tables need one. Without it
    no such file counts."""
    jars: PathSetting = Path(".tools/spark-jars")
    """Folder with the JARs of Delta and of the Kafka connector."""

    def interval_seconds(self, query: str) -> float:
        """Least time from the start of one micro-batch of a query that computes results to the next."""
        return self.trend_interval_seconds if query == "trend" else self.trigger_interval_seconds

    @property
    def lateness_ms(self) -> int:
        """The lateness in milliseconds."""
        return round(self.lateness_seconds * 1_000)

    @property
    def lakehouse_uri(self) -> str:
        """Where the tables are."""
        return self.lakehouse or str(self.home.absolute() / "lakehouse")

    @property
    def checkpoints_uri(self) -> str:
        """Where the checkpoints are."""
        return self.checkpoints or str(self.home.absolute() / "checkpoints")

    def table_uri(self, table: str) -> str:
        """Where one table is."""
        return f"{self.lakehouse_uri.rstrip('/')}/{table}"

    def checkpoint_uri(self, query: str) -> str:
        """Where one query keeps its checkpoint."""
        return f"{self.checkpoints_uri.rstrip('/')}/{query}"
