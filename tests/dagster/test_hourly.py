"""The hourly job: everything materialised and checked in one run, and results that stay listed between two runs."""

import asyncio
import datetime
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.loader import LoadingContextForTest

from orchestration.defs.asset_events import LONGEST_SECONDS, event_of, materialised_at
from orchestration.defs.resources import MongoResource
from orchestration.monitoring.health_checks import CHECKS
from orchestration.monitoring.table_checks import TABLE_CHECKS
from orchestration.recompute.expected_rows import RESULT_TABLES
from tests.dagster.conftest import definitions
from tests.history_tables import History
from tests.integration.test_history import MIDNIGHT, alter, times, walk
from tests.market_tables import append, make, rows

START = datetime.datetime(2025, 5, 8, 12, tzinfo=datetime.UTC)
EVERY = {f"{key.asset}:{key.name}" for key in [*CHECKS, *TABLE_CHECKS]}
"""All checks but `reconcile`, which has nothing to say as long as there is nothing to compare."""


def checked(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Which checks a run has evaluated, and whether they passed."""
    return {
        f"{each.asset_key.to_user_string()}:{each.check_name}": each.passed
        for each in result.get_asset_check_evaluations()
    }


def materialised(result: dg.ExecuteInProcessResult) -> set[str]:
    events = result.get_asset_materialization_events()
    return {event.step_materialization_data.materialization.asset_key.to_user_string() for event in events}


def listed(instance: dg.DagsterInstance) -> set[str]:
    """The checks whose results Dagster lists, by what its interface asks."""
    keys = [dg.AssetCheckKey(dg.AssetKey(key.asset), key.name) for key in [*CHECKS, *TABLE_CHECKS]]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)

    async def which() -> set[str]:
        context = LoadingContextForTest(instance)
        return {
            f"{key.asset_key.to_user_string()}:{key.name}"
            for key, record in records.items()
            if await record.targets_latest_materialization(context)
        }

    return asyncio.run(which())


@pytest.mark.integration
def test_what_has_changed_is_materialised_and_all_checks_are_evaluated(
    stand_in_home: Path, mongo_uri: str, instance: dg.DagsterInstance
) -> None:
    history = History(stand_in_home / "lakehouse")
    history.send(walk(MIDNIGHT - 2_000_000, 500, 1))
    history.archive()
    loaded = definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))
    assert loaded.resolve_job_def("load_mongodb").execute_in_process(instance=instance).success
    job = loaded.resolve_job_def("check_everything")
    first = job.execute_in_process(instance=instance)
    assert materialised(first) == {"prices", *RESULT_TABLES}, "the load has materialised the collections"
    reconciled = {f"{table}:reconcile" for table in RESULT_TABLES}
    assert set(checked(first)) == EVERY | reconciled
    assert all(checked(first)[name] for name in reconciled)

    alter(history, "moving_stats", "BTCUSDT", times(history, "moving_stats")[-1])
    second = job.execute_in_process(instance=instance)
    assert materialised(second) == {"moving_stats"}
    assert {name for name in reconciled if not checked(second)[name]} == {"moving_stats:reconcile"}


def test_results_stay_listed_while_their_assets_are_observed(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make(stand_in_home / "lakehouse", START, 600)
    loaded = definitions(stand_in_home)
    loaded.resolve_job_def("check_everything").execute_in_process(instance=instance, raise_on_error=False)
    assert listed(instance) == EVERY
    append(stand_in_home / "lakehouse", "zscores", rows("zscores", START, [600]))
    loaded.resolve_job_def("draw_last_hour").execute_in_process(instance=instance)
    now = time.time()
    instance.report_runless_asset_event(event_of(instance, "zscores", {}, now, now))
    assert listed(instance) == EVERY
    instance.report_runless_asset_event(dg.AssetMaterialization("zscores"))
    assert listed(instance) == {name for name in EVERY if not name.startswith("zscores:")}


def test_an_hour_without_prices_is_no_failure(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    result = definitions(stand_in_home).resolve_job_def("check_everything").execute_in_process(instance=instance)
    assert result.success
    assert not materialised(result)
    assert set(checked(result)) == EVERY


def test_results_of_which_none_is_final_are_no_failure(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    history = History(stand_in_home / "lakehouse")
    history.send(walk(MIDNIGHT, 1, 1))
    history.archive()
    result = definitions(stand_in_home).resolve_job_def("check_everything").execute_in_process(instance=instance)
    assert result.success
    found = checked(result)
    assert all(found[f"{table}:reconcile"] for table in RESULT_TABLES)


@pytest.mark.parametrize(
    ("age", "changed_after", "kind"),
    [
        pytest.param(1.0, 0.5, dg.AssetObservation, id="a moment ago"),
        pytest.param(LONGEST_SECONDS - 1, 1.0, dg.AssetObservation, id="within the hour"),
        pytest.param(LONGEST_SECONDS, 1.0, dg.AssetMaterialization, id="nobody did it"),
        pytest.param(LONGEST_SECONDS, -1.0, dg.AssetObservation, id="nothing has changed"),
    ],
)
def test_a_change_is_a_materialisation_when_none_has_come_for_long(
    instance: dg.DagsterInstance, age: float, changed_after: float, kind: type
) -> None:
    assert isinstance(event_of(instance, "zscores", {}, 0.0, 0.0), dg.AssetMaterialization), "the first"
    instance.report_runless_asset_event(dg.AssetMaterialization("zscores"))
    last = materialised_at(instance, "zscores")
    assert last is not None
    assert type(event_of(instance, "zscores", {}, last + changed_after, last + age)) is kind
