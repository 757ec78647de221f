"""Loading MongoDB by Dagster: the assets against the real server, and the sensor in every state of earlier loads."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from pymongo import MongoClient

from orchestration.defs import load as defs_load
from orchestration.defs import run_cleanup
from orchestration.defs.resources import MongoResource
from orchestration.defs.run_cleanup import tidy_runs
from orchestration.serving.load_policy import LOAD_POLICY
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, Document
from orchestration.settings import PROJECT_ROOT
from tests.dagster.conftest import definitions, make_run
from tests.dagster.endless_load import AT_WORK
from tests.zscore_tables import append, rows
from tickhouse.contract.names import WINDOWS

pytestmark = pytest.mark.integration


@pytest.fixture
def client(mongo_uri: str) -> Iterator[MongoClient[Document]]:
    with MongoClient[Document](mongo_uri) as opened:
        for database in (DATABASE, RECORDS_DATABASE):
            opened.drop_database(database)
        yield opened


@pytest.fixture
def loading(stand_in_home: Path, mongo_uri: str, client: MongoClient[Document]) -> dg.Definitions:
    """The definitions with the real MongoDB and a table of twelve rows."""
    append(stand_in_home / "lakehouse", rows(range(12)))
    return definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))


def load(loaded: dg.Definitions, instance: dg.DagsterInstance, windows: tuple[str, ...] = ()) -> Any:
    job = loaded.resolve_job_def("load_mongodb")
    selection = [dg.AssetKey(f"zscore_{window}") for window in windows] or None
    return job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False)


def tick(loaded: dg.Definitions, instance: dg.DagsterInstance) -> dg.SensorResult:
    context = dg.build_sensor_context(
        instance=instance, definitions=loaded, sensor_name="load_new_zscores", resources=loaded.resources or {}
    )
    result = defs_load.load_new_zscores(context)
    assert isinstance(result, dg.SensorResult)
    return result


def skipped(result: dg.SensorResult) -> str:
    assert not result.run_requests
    assert isinstance(result.skip_reason, dg.SkipReason)
    return result.skip_reason.skip_message or ""


def test_materialising_loads_and_tells(
    loading: dg.Definitions, instance: dg.DagsterInstance, client: MongoClient[Document]
) -> None:
    result = load(loading, instance)
    assert result.success
    for window in WINDOWS:
        assert client[DATABASE][f"btc-price-zscore-{window}"].count_documents({}) == 12
        event = instance.get_latest_materialization_event(dg.AssetKey(f"zscore_{window}"))
        assert event is not None and event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert metadata["dagster/row_count"].value == metadata["rows_loaded"].value == 12
        assert metadata["delta_version"].value == 0
        assert metadata["collection"].value == f"btc-price-zscore-{window}"


def test_a_part_of_the_collections_can_be_loaded(
    loading: dg.Definitions, instance: dg.DagsterInstance, client: MongoClient[Document]
) -> None:
    assert load(loading, instance, ("5m", "1h")).success
    assert set(client[DATABASE].list_collection_names()) == {"btc-price-zscore-5m", "btc-price-zscore-1h"}
    assert tick(loading, instance).run_requests, "the others are still to be loaded"


def test_a_failed_load_says_why(
    stand_in_home: Path, mongo_uri: str, client: MongoClient[Document], instance: dg.DagsterInstance
) -> None:
    loaded = definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))
    result = load(loaded, instance)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "start the zscore stream first" in failure.step_failure_data.error_display_string


def test_the_sensor_requests_a_load_once_and_again_for_new_rows(
    loading: dg.Definitions, instance: dg.DagsterInstance, stand_in_home: Path
) -> None:
    assert len(tick(loading, instance).run_requests or []) == 1
    assert load(loading, instance).success
    assert skipped(tick(loading, instance)) == "version 0 is loaded"
    append(stand_in_home / "lakehouse", rows(range(12, 14)))
    assert len(tick(loading, instance).run_requests or []) == 1


@pytest.mark.parametrize("status", list(dg.DagsterRunStatus))
def test_no_load_is_requested_while_one_is_unfinished(
    loading: dg.Definitions, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    make_run(instance, loading.resolve_job_def("load_mongodb"), status)
    result = tick(loading, instance)
    if status in NOT_FINISHED_STATUSES:
        assert skipped(result) == "a load is under way"
    elif status == dg.DagsterRunStatus.FAILURE:
        assert "attempt 2 is due in" in skipped(result)
    else:
        assert result.run_requests


def test_a_load_that_never_ends_does_not_block_for_ever(
    loading: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(instance, loading.resolve_job_def("load_mongodb"), dg.DagsterRunStatus.STARTED)
    assert skipped(tick(loading, instance)) == "a load is under way"
    monkeypatch.setattr(defs_load, "LOAD_RUN_SECONDS", 0.0)
    assert tick(loading, instance).run_requests


def test_a_load_that_was_killed_has_failed_and_the_next_comes_at_once(loading: dg.Definitions, tmp_path: Path) -> None:
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        program = f"from tests.dagster.endless_load import main; main({str(folder)!r})"
        worker = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT)
        try:
            deadline = time.monotonic() + 60
            while not (folder / AT_WORK).exists():
                assert worker.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            assert skipped(tick(loading, instance)) == "a load is under way"
        finally:
            worker.kill()
            worker.wait()
        assert "attempt 2 is due in" in skipped(tick(loading, instance))
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        record = instance.get_run_record_by_id(run.run_id)
        assert record is not None and record.end_time is not None and time.time() - record.end_time < 10


def fail(loaded: dg.Definitions, instance: dg.DagsterInstance, times: int) -> None:
    for _ in range(times):
        make_run(instance, loaded.resolve_job_def("load_mongodb"), dg.DagsterRunStatus.FAILURE)


def test_a_failed_load_is_repeated_without_new_rows(
    loading: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(loading, instance, 1)
    assert "attempt 2 is due in" in skipped(tick(loading, instance))
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + LOAD_POLICY.first_pause + 1)
    assert tick(loading, instance).run_requests


def test_loads_that_always_fail_are_given_up_until_one_by_hand_is_good(
    loading: dg.Definitions, instance: dg.DagsterInstance, stand_in_home: Path
) -> None:
    fail(loading, instance, LOAD_POLICY.limit)
    assert "given up after 12 failed loads" in skipped(tick(loading, instance))
    assert load(loading, instance).success
    append(stand_in_home / "lakehouse", rows([99]))
    assert tick(loading, instance).run_requests


def test_nothing_is_attempted_while_mongodb_is_away(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    append(stand_in_home / "lakehouse", rows([0]))
    assert "MongoDB does not answer" in skipped(tick(definitions(stand_in_home), instance))


def test_runs_of_good_loads_are_removed_after_hours_but_the_newest(
    loading: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = loading.resolve_job_def("load_mongodb")
    for status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE):
        make_run(instance, job, status)
    another = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("another"), "another").get_job_origin(job.name)
    others = make_run(instance, job, dg.DagsterRunStatus.SUCCESS, remote_job_origin=another)
    newest = make_run(instance, job, dg.DagsterRunStatus.SUCCESS)
    context = dg.SensorEvaluationContext(
        instance_ref=None, instance=instance, code_location_origin=RegisteredCodeLocationOrigin("tickhouse")
    )
    assert "0 runs removed" in str(tidy_runs(context))
    monkeypatch.setattr(run_cleanup, "KEEP_HOURS", -1)
    assert "2 runs removed" in str(tidy_runs(context))
    left = instance.get_runs()
    assert sorted(run.status.value for run in left) == ["FAILURE", "SUCCESS", "SUCCESS"]
    assert {newest.run_id, others.run_id} < {run.run_id for run in left}, "another code location's are not ours"
