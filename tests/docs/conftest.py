"""What the tests of the documentation share: a project's folder as a user has it, with tables made without Spark."""

from __future__ import annotations

import datetime
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable
from pymongo import MongoClient

from orchestration.lakehouse import gap_log
from orchestration.lakehouse.tables import Lakehouse
from orchestration.local.broker import create_topics
from orchestration.local.home import mark
from orchestration.serving.load import load
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, MongoStore
from orchestration.settings import PROJECT_ROOT
from spark_jobs.checkpoints.gaps import Gap
from tests.broker_topics import remove_topics
from tests.reference.model import Expected
from tests.reference_tables import make


class Project(NamedTuple):
    """A folder with a home in it, and what its tables were made of."""

    folder: Path
    expected: Expected

    @property
    def lakehouse(self) -> Path:
        """Where the tables are."""
        return self.folder / ".tickhouse" / "lakehouse"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """To be read only. Random walks of two symbols for half an hour together."""
    folder = tmp_path_factory.mktemp("project")
    home = folder / ".tickhouse"
    home.mkdir()
    mark(home)
    lakehouse = home / "lakehouse"
    expected = make(lakehouse, seed=5, symbols=("BTCUSDT", "ETHUSDT"), ticks=18_000)
    lost = Gap("btc-price", 0, 7, 9, "removed by the broker")
    gap_log.append(str(lakehouse), [("moving", lost)], datetime.datetime(2025, 5, 9, tzinfo=datetime.UTC))
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "examples").symlink_to(PROJECT_ROOT / "examples")
    shutil.copy(PROJECT_ROOT / ".env.example", folder)
    return Project(folder, expected)


@pytest.fixture(scope="module")
def loaded_mongo(project: Project, mongo_uri: str) -> Iterator[str]:
    """Address of a mongod, as `mongodb://HOST:PORT`, that the project's tables are loaded into."""
    with MongoClient[dict[str, object]](mongo_uri) as client:
        for database in (DATABASE, RECORDS_DATABASE):
            client.drop_database(database)
        store = MongoStore(mongo_uri)
        load(Lakehouse(str(project.lakehouse)), store)
        store.close()
        yield mongo_uri.partition("/?")[0]


@pytest.fixture(scope="module")
def published_broker(project: Project, broker: str) -> Iterator[str]:
    """Address of a broker with the project's z-scores on their topic, among what an attempt left that failed."""
    topic = "btc-price-zscore"
    remove_topics(broker, [topic])
    create_topics(broker, [topic])
    producer = Producer({"bootstrap.servers": broker, "transactional.id": "documentation", "compression.type": "lz4"})
    producer.init_transactions(30)
    rows = DeltaTable(str(project.lakehouse / "zscores")).to_pyarrow_table(columns=["symbol", "timestamp", "z_scores"])
    for succeeds in (False, True):
        producer.begin_transaction()
        for row in rows.to_pylist() if succeeds else rows.slice(0, 100).to_pylist():
            value = {**row, "timestamp": row["timestamp"].isoformat(timespec="milliseconds").replace("+00:00", "Z")}
            producer.produce(topic, json.dumps(value), row["symbol"])
        producer.flush(30)
        producer.commit_transaction(30) if succeeds else producer.abort_transaction(30)
    yield broker
    remove_topics(broker, [topic])
