"""Stream assets materialised for real: broker, Spark, Delta and MongoDB, over what is there."""

import datetime
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from confluent_kafka import Producer
from pymongo import MongoClient

from orchestration.definitions import build_definitions
from orchestration.lakehouse.tables import Lakehouse
from orchestration.local import processes
from orchestration.local.broker import create_topics
from orchestration.monitoring.status import collect
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, Document
from orchestration.settings import Endpoints, OrchestrationSettings, write_endpoints
from orchestration.supervision.lag import Topics
from tests.dagster.conftest import RealHome
from tickhouse import files
from tickhouse.contract.topology import JOBS, TABLES, TOPICS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.whole_machine]

SOURCE = "replay:/nowhere/ticks.jsonl"
TICKS = 400


def publish(bootstrap: str) -> None:
    """Ticks of a symbol that no other test uses, and one message that is none."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    start = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(minutes=5)
    for tick in range(TICKS):
        timestamp = (start + datetime.timedelta(milliseconds=100 * tick)).isoformat(timespec="milliseconds")
        message = {"symbol": "DAGSTERUSDT", "price": 100 + tick % 9, "timestamp": timestamp}
        producer.produce("btc-price", json.dumps(message), "DAGSTERUSDT")
    producer.produce("btc-price", b"no tick", "DAGSTERUSDT")
    assert producer.flush(30) == 0


def materialise(loaded: dg.Definitions, instance: dg.DagsterInstance, job: str) -> None:
    result = loaded.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(table) for table in JOBS[job].tables],
        run_config={"ops": {f"{job}_stream": {"config": {"trigger": "available_now"}}}},
    )
    assert result.success


def rows(instance: dg.DagsterInstance, asset: str) -> Any:
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None and event.asset_materialization is not None
    return event.asset_materialization.metadata["dagster/row_count"].value


def test_everything_that_is_there_goes_through(
    broker: str,
    mongo_uri: str,
    tools: Path,
    home: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    RealHome(broker, mongo_uri, tools).use(monkeypatch)
    with MongoClient[Document](mongo_uri) as client:
        for database in (DATABASE, RECORDS_DATABASE):
            client.drop_database(database)
    create_topics(broker, TOPICS)
    publish(broker)
    settings = OrchestrationSettings.read(home=home)
    loaded = build_definitions(settings)
    processes.run_folder(home)
    write_endpoints(
        home,
        Endpoints(
            kafka_bootstrap=broker,
            mongo_uri=mongo_uri,
            lakehouse=settings.lakehouse,
            checkpoints=settings.checkpoints,
            source=SOURCE,
        ),
    )
    files.write_json(home / "run" / "producer.heartbeat.json", {"source": SOURCE, "state": "ended"})

    for job in JOBS:
        assert not collect(settings).drained
        materialise(loaded, instance, job)
    before_load = collect(settings)
    assert {reason.split()[0] for reason in before_load.waiting_for} == {"collection"}
    assert loaded.resolve_job_def("load_mongodb").execute_in_process(instance=instance).success

    status = collect(settings)
    assert status.drained, status.waiting_for
    assert status.problems == []
    assert {stream.state for stream in status.streams.values()} == {"stopped"}
    assert {stream.lag for stream in status.streams.values()} == {0}
    messages = sum(Topics(broker).end_offsets(["btc-price"])["btc-price"].values())
    assert rows(instance, "prices") + rows(instance, "rejects") == messages
    assert rows(instance, "zscores") == rows(instance, "moving_stats") >= TICKS - 100
    assert rows(instance, "zscore_30s") == rows(instance, "zscores")
    assert {collection.documents for collection in status.load.values()} == {rows(instance, "zscores")}
    with MongoClient[Document](mongo_uri) as client:
        assert client[DATABASE]["btc-price-zscore-1h"].count_documents({}) == rows(instance, "zscores")
    assert Lakehouse(settings.lakehouse).columns("zscores")[0] == ("symbol", "string", "trading pair")

    checked = loaded.resolve_job_def("check_tables").execute_in_process(instance=instance)
    said = {
        f"{found.asset_key.to_user_string()}:{found.check_name}": (found.passed, found.description)
        for found in checked.get_asset_check_evaluations()
    }
    assert all(passed for passed, _ in said.values()), said
    assert {said[f"{table}:schema"] for table in TABLES} == {(True, "as declared")}
    assert said["zscore_1h:equals_table"] == (True, "equal")

    # Nothing is there that was not there before: a second time adds nothing, and says so.
    materialise(loaded, instance, "zscore")
    assert rows(instance, "zscores") == status.load["btc-price-zscore-1h"].documents


def test_a_job_that_fails_is_the_run_failing_with_its_reason(
    mongo_uri: str, tools: Path, home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    RealHome("127.0.0.1:1", mongo_uri, tools).use(monkeypatch)
    monkeypatch.setenv("TICKHOUSE_JARS", str(home / "no-jars"))
    loaded = build_definitions(OrchestrationSettings.read(home=home))
    with pytest.raises(dg.Failure, match="no JARs in"):
        materialise(loaded, instance, "moving")
    assert [path.name for path in (home / "logs").iterdir()] == ["moving.log"]
