"""The jobs that launch, stop and restart streams, and the stream assets, with stand-ins for the stream processes."""

from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pydantic import ValidationError

from orchestration.defs.resources import StreamsResource
from orchestration.local import processes
from tests.dagster.conftest import definitions
from tickhouse.contract.topology import JOBS, TABLES


def run(home: Path, job: str, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    op = job.removesuffix("_streams")
    return (
        definitions(home)
        .resolve_job_def(job)
        .execute_in_process(instance=instance, run_config={"ops": {op: {"config": config}}}, raise_on_error=False)
    )


def alive(home: Path, name: str) -> bool:
    process = processes.recorded(home, name)
    return process is not None and processes.alive(process)


def failure(result: dg.ExecuteInProcessResult) -> str:
    events = [event for event in result.all_events if event.is_step_failure]
    return events[0].step_failure_data.error_display_string if events else ""


def test_streams_are_launched_stopped_and_restarted(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    assert run(stand_in_home, "launch_streams", instance).success
    assert all(alive(stand_in_home, name) for name in JOBS)
    assert {processes.get_wanted(stand_in_home, name) for name in JOBS} == {"running"}

    before = processes.recorded(stand_in_home, "moving")
    assert run(stand_in_home, "launch_streams", instance, streams=["moving"]).success
    assert processes.recorded(stand_in_home, "moving") == before, "one that runs is left alone"

    assert run(stand_in_home, "restart_streams", instance, streams=["moving"]).success
    assert alive(stand_in_home, "moving")
    assert processes.recorded(stand_in_home, "moving") != before

    assert run(stand_in_home, "stop_streams", instance, streams=["moving", "trend"]).success
    assert {name for name in JOBS if alive(stand_in_home, name)} == {"prices", "zscore"}
    assert processes.get_wanted(stand_in_home, "trend") == "stopped"
    assert processes.get_wanted(stand_in_home, "prices") == "running"


def said(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    """What the run's log says, in order, without what Dagster itself says."""
    return [entry.user_message for entry in instance.all_logs(result.run_id) if entry.dagster_event is None]


def test_a_restart_says_what_it_does_as_it_does_it(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    run(stand_in_home, "launch_streams", instance)
    before = {name: processes.recorded(stand_in_home, name) for name in JOBS}
    told = said(instance, run(stand_in_home, "restart_streams", instance))
    for name in JOBS:
        old, new = before[name], processes.recorded(stand_in_home, name)
        assert old is not None and new is not None
        *steps, end = (sentence for sentence in told if sentence.startswith(f"{name}: "))
        assert steps == [
            f"{name}: stopping process {old.pid}",
            f"{name}: stopped process {old.pid}",
            f"{name}: started as process {new.pid}, and not yet at work",
        ]
        assert end.startswith(f"{name}: running as process {new.pid}, wanted running; log ")


def test_one_that_fails_does_not_hold_up_the_others(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    (stand_in_home / "moving.behaviour").write_text("die")
    result = run(stand_in_home, "launch_streams", instance)
    assert not result.success
    assert "moving is crashed: it was told to die" in failure(result)
    assert "something is amiss" in failure(result), "the end of the log is shown"
    assert {name for name in JOBS if alive(stand_in_home, name)} == set(JOBS) - {"moving"}
    assert processes.get_wanted(stand_in_home, "moving") == "running", "the supervisor goes on trying"


def test_what_the_supervisor_asks_for_does_not_undo_a_stop(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    processes.set_wanted(stand_in_home, "moving", "stopped")
    for job in ("launch_streams", "restart_streams"):
        assert run(stand_in_home, job, instance, streams=["moving"], only_wanted=True).success
        assert not alive(stand_in_home, "moving")
        assert processes.get_wanted(stand_in_home, "moving") == "stopped"


@pytest.mark.parametrize("streams", [["moving", "nonsense"], []])
def test_unknown_streams_are_refused(stand_in_home: Path, instance: dg.DagsterInstance, streams: list[str]) -> None:
    with pytest.raises(ValidationError, match="streams are some of prices, moving, zscore, trend"):
        definitions(stand_in_home).resolve_job_def("launch_streams").execute_in_process(
            instance=instance, run_config={"ops": {"launch": {"config": {"streams": streams}}}}
        )
    assert not any(alive(stand_in_home, name) for name in JOBS)


def make_tables(home: Path) -> None:
    for table in TABLES:
        write_deltalake(str(home / "lakehouse" / table), pa.table({"symbol": ["BTCUSDT"], "n": [1]}))


def materialise(home: Path, instance: dg.DagsterInstance, table: str, **config: Any) -> dg.ExecuteInProcessResult:
    job = definitions(home).resolve_implicit_global_asset_job_def()
    stream = next(name for name, spec in JOBS.items() if table in spec.tables)
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in JOBS[stream].tables],
        run_config={"ops": {f"{stream}_stream": {"config": config}}},
        raise_on_error=False,
    )


def test_materialising_launches_and_tells(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make_tables(stand_in_home)
    result = materialise(stand_in_home, instance, "higher")
    assert result.success
    assert alive(stand_in_home, "trend")
    told = {
        event.asset_key: event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    assert set(told) == {dg.AssetKey("higher"), dg.AssetKey("lower")}
    process = processes.recorded(stand_in_home, "trend")
    assert process is not None
    metadata = told[dg.AssetKey("lower")]
    assert metadata["process"].value == process.pid
    assert metadata["log"].value == process.log
    assert metadata["dagster/row_count"].value == 1
    assert metadata["delta_version"].value == 0


def test_materialising_what_is_there_ends(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make_tables(stand_in_home)
    assert materialise(stand_in_home, instance, "zscores", trigger="available_now").success
    assert not alive(stand_in_home, "zscore")
    assert processes.get_wanted(stand_in_home, "zscore") == "stopped", "it is not kept running afterwards"


def test_a_failure_of_what_is_there_fails_the_run_with_the_log(
    stand_in_home: Path, instance: dg.DagsterInstance
) -> None:
    make_tables(stand_in_home)
    (stand_in_home / "zscore.behaviour").write_text("die")
    result = materialise(stand_in_home, instance, "zscores", trigger="available_now")
    assert not result.success
    assert "zscore ended with exit code 1: it was told to die" in failure(result)
    assert "something is amiss" in failure(result)


def test_what_is_stopped_before_it_is_done_fails_the_run(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make_tables(stand_in_home)
    (stand_in_home / "zscore.behaviour").write_text("halfway")
    result = materialise(stand_in_home, instance, "zscores", trigger="available_now")
    assert "zscore was stopped before it had processed all that was there" in failure(result)


def test_a_run_that_takes_too_long_leaves_no_process(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make_tables(stand_in_home)
    # A command that ignores its trigger: it would run for a minute.
    endless = StreamsResource(home=str(stand_in_home), command=["sh", "-c", "sleep 60"])
    job = definitions(stand_in_home, streams=endless)
    result = job.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey("zscores")],
        run_config={"ops": {"zscore_stream": {"config": {"trigger": "available_now", "timeout_seconds": 1.0}}}},
        raise_on_error=False,
    )
    assert not result.success
    assert "zscore was not done after 1 s" in failure(result)
    process = processes.recorded(stand_in_home, "zscore")
    assert process is not None
    assert not psutil.pid_exists(process.pid)
