"""The maintenance job: what it does to tables without Spark, what its run log says, and when it runs."""

import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError
from pymongo import MongoClient

from orchestration.defs.maintenance import MaintenanceConfig
from orchestration.defs.resources import MongoResource
from orchestration.defs.schedules import daily_maintenance
from orchestration.lakehouse.tables import Lakehouse
from orchestration.serving.load import load
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, Document, MongoStore
from tests.dagster.conftest import definitions
from tests.zscore_tables import append, rows


def maintain(loaded: dg.Definitions, instance: dg.DagsterInstance, **config: Any) -> tuple[bool, str]:
    """Run the job; whether it was a success, and its log."""
    result = loaded.resolve_job_def("maintain_tables").execute_in_process(
        instance=instance, run_config={"ops": {"maintain": {"config": config}}}, raise_on_error=False
    )
    return result.success, "\n".join(entry.message for entry in instance.all_logs(result.run_id))


def append_often(home: Path, times: int) -> None:
    for number in range(times):
        append(home / "lakehouse", rows(range(number, number + 1)))


def test_a_run_says_what_it_did_to_each_table(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    append_often(stand_in_home, 20)
    loaded = definitions(stand_in_home)
    success, said = maintain(loaded, instance, dry_run=True)
    assert success
    assert "dry run" in said
    assert Lakehouse(str(stand_in_home / "lakehouse")).content("zscores").files == 20
    success, said = maintain(loaded, instance)
    assert success
    assert "zscores: 20 files" in said and "became 1 of" in said and "prices: there is no such table yet" in said
    assert "nothing is removed as MongoDB does not say what it has loaded" in said
    content = Lakehouse(str(stand_in_home / "lakehouse")).content("zscores")
    assert (content.files, content.rows) == (1, 20)


@pytest.mark.integration
def test_nothing_is_removed_that_is_still_to_be_loaded(
    stand_in_home: Path, instance: dg.DagsterInstance, mongo_uri: str
) -> None:
    with MongoClient[Document](mongo_uri) as client:
        for database in (DATABASE, RECORDS_DATABASE):
            client.drop_database(database)
        append_often(stand_in_home, 3)
        store = MongoStore(mongo_uri)
        load(Lakehouse(str(stand_in_home / "lakehouse")), store)
        store.close()
        loaded = definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))
        assert "nothing is removed" not in maintain(loaded, instance, tables=["zscores"])[1]
        append_often(stand_in_home, 1)
        assert "nothing is removed" not in maintain(loaded, instance, tables=["zscores"])[1]
        long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=7)
        one = {"_id": "btc-price-zscore-1m"}
        client[RECORDS_DATABASE]["loads"].update_one(one, {"$set": {"loaded_at": long_ago, "delta_version": 1}})
        assert "nothing is removed while version 1" in maintain(loaded, instance, tables=["zscores"])[1]


@pytest.mark.integration
def test_old_documents_are_removed_where_a_retention_is_set(
    stand_in_home: Path, instance: dg.DagsterInstance, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MongoClient[Document](mongo_uri) as client:
        for database in (DATABASE, RECORDS_DATABASE):
            client.drop_database(database)
        append(stand_in_home / "lakehouse", rows([0, 1, 3 * 864_000]))
        loaded = definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))
        loading = loaded.resolve_job_def("load_mongodb")
        assert loading.execute_in_process(instance=instance).success
        documents = client[DATABASE]["btc-price-zscore-1h"]
        monkeypatch.delenv("TICKHOUSE_MONGO_RETENTION_DAYS", raising=False)
        assert "documents" not in maintain(loaded, instance, tables=["zscores"])[1]
        monkeypatch.setenv("TICKHOUSE_MONGO_RETENTION_DAYS", "2")
        assert "2 documents removed" in maintain(loaded, instance, tables=["zscores"], dry_run=True)[1]
        assert documents.count_documents({}) == 3
        success, said = maintain(loaded, instance, tables=["zscores"], mongo_retention_days=1)
        assert success
        assert "btc-price-zscore-1h: 2 documents removed; kept BTCUSDT from 2025-05-10" in said
        assert documents.count_documents({}) == 1
        anew = {"ops": {"load_collections": {"config": {"rebuild": True}}}}
        assert loading.execute_in_process(instance=instance, run_config=anew).success
        assert documents.count_documents({}) == 3


def test_a_retention_that_cannot_be_kept_fails_the_run(
    stand_in_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_often(stand_in_home, 1)
    monkeypatch.setenv("TICKHOUSE_MONGO_RETENTION_DAYS", "2")
    success, said = maintain(definitions(stand_in_home), instance, tables=["zscores"])
    assert not success
    assert "documents older than 2 days stay until the next run" in said


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"tables": ["price"]}, "tables are some of prices, rejects"),
        ({"tables": []}, "not none"),
        ({"retention_days": 6}, "greater than or equal to 7"),
        ({"mongo_retention_days": -1}, "greater than or equal to 0"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        MaintenanceConfig(**config)


def test_it_runs_daily_from_the_start() -> None:
    assert daily_maintenance.default_status == dg.DefaultScheduleStatus.RUNNING
    evaluated = daily_maintenance.evaluate_tick(
        dg.build_schedule_context(scheduled_execution_time=datetime.datetime(2026, 1, 1, 0, 23, tzinfo=datetime.UTC))
    )
    assert evaluated.run_requests and len(evaluated.run_requests) == 1
