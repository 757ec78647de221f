"""The jobs `backfill` and `reconcile_results`: what runs do and say, with tables made without Spark."""

import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError
from pymongo import MongoClient

from orchestration.defs.recompute import BackfillConfig, ReconcileConfig, days
from orchestration.defs.resources import MongoResource
from orchestration.recompute.expected_rows import RESULT_TABLES
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, Document
from tests.dagster.conftest import definitions
from tests.history_tables import History
from tests.integration.test_history import MIDNIGHT, all_rows, alter, late_tick, times, walk

pytestmark = pytest.mark.integration

AT = {"minutes": 120, "until": "2025-05-09T01:00:00Z"}


@pytest.fixture
def history(stand_in_home: Path) -> History:
    made = History(stand_in_home / "lakehouse")
    made.send(walk(MIDNIGHT - 2_000_000, 500, 1))
    made.archive()
    return made


def run(loaded: dg.Definitions, instance: dg.DagsterInstance, job: str, **given: Any) -> tuple[Any, str]:
    result = loaded.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **given)
    return result, "\n".join(
        f"{entry.message}{entry.dagster_event.event_specific_data if entry.dagster_event else ''}"
        for entry in instance.all_logs(result.run_id)
    )


def checks(loaded: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, tuple[bool, str]]:
    result, _ = run(loaded, instance, "reconcile_results", run_config={"ops": {"reconcile_tables": {"config": AT}}})
    return {
        each.asset_key.to_user_string(): (each.passed, each.description or "")
        for each in result.get_asset_check_evaluations()
    }


def test_an_altered_value_fails_the_check_and_a_backfill_of_the_day_repairs_all(
    history: History, stand_in_home: Path, mongo_uri: str, instance: dg.DagsterInstance
) -> None:
    with MongoClient[Document](mongo_uri) as client:
        for database in (DATABASE, RECORDS_DATABASE):
            client.drop_database(database)
        loaded = definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))
        assert {passed for passed, _ in checks(loaded, instance).values()} == {True}
        alter(history, "moving_stats", "BTCUSDT", times(history, "moving_stats")[200])
        passed, text = checks(loaded, instance)["moving_stats"]
        assert not passed and "std_price of 5m" in text
        late_tick(history)

        result, log = run(loaded, instance, "backfill", partition_key="2025-05-08")
        assert result.success
        assert all(f"{table}: " in log and "1 added" in log for table in RESULT_TABLES)
        for table in RESULT_TABLES:
            event = instance.get_latest_materialization_event(dg.AssetKey(table))
            assert event is not None and event.asset_materialization is not None
            assert event.asset_materialization.metadata["rows_added"].value == 1
        assert {passed for passed, _ in checks(loaded, instance).values()} == {True}
        assert client[DATABASE]["btc-price-zscore-1h"].count_documents({}) == len(all_rows(history, "zscores"))

        result, log = run(loaded, instance, "backfill", partition_key="2025-05-08")
        assert result.success and log.count("nothing to change") == len(RESULT_TABLES)


def test_without_mongodb_the_tables_are_done_and_the_run_says_what_is_not(
    history: History, stand_in_home: Path, instance: dg.DagsterInstance
) -> None:
    late_tick(history)
    before = len(all_rows(history, "zscores"))
    result, log = run(definitions(stand_in_home), instance, "backfill", partition_key="2025-05-08")
    assert not result.success
    assert "the tables are backfilled, the collections are not yet in line" in log
    assert len(all_rows(history, "zscores")) == before + 1


def test_without_prices_it_is_said_what_to_do(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    loaded = definitions(stand_in_home)
    result, log = run(loaded, instance, "backfill", partition_key="2025-05-08")
    assert not result.success and "start the prices stream first" in log
    # A check of what cannot be compared takes nothing else down: a stream may be materialised before there are prices.
    result, _ = run(loaded, instance, "reconcile_results")
    evaluations = result.get_asset_check_evaluations()
    assert result.success and {each.asset_key.to_user_string() for each in evaluations} == set(RESULT_TABLES)
    for each in evaluations:
        assert not each.passed and "start the prices stream first" in (each.description or "")


def test_what_can_be_chosen() -> None:
    keys = days.get_partition_keys()
    assert keys[0] == "2020-01-01" and keys[-1] == str(datetime.datetime.now(datetime.UTC).date())
    assert BackfillConfig.model_validate({}).tables == list(RESULT_TABLES)
    with pytest.raises(ValidationError, match="not prices"):
        BackfillConfig.model_validate({"tables": ["prices"]})
    with pytest.raises(ValidationError, match="with its offset"):
        ReconcileConfig.model_validate({"until": "2025-05-09T00:00:00"})
