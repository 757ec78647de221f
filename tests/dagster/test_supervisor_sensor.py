"""The supervisor sensor on a real instance: every unfinished status of a run, what it requests, what it reports."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from orchestration.defs import supervisor
from orchestration.defs.resources import TopicsResource
from orchestration.defs.run_processes import TAG
from orchestration.defs.supervisor_cursor import OBSERVE_SECONDS, Memory
from orchestration.local import process_identity, processes
from orchestration.monitoring.status import collect
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.lag import Topics
from tests.dagster.conftest import definitions, make_run
from tests.zscore_tables import append, rows
from tickhouse import files
from tickhouse.contract.topology import JOBS, TOPICS

STATUSES = list(dg.DagsterRunStatus)


class Answering(Topics):
    """Topics that are empty, without a broker."""

    def __init__(self) -> None:
        """No connection."""

    def end_offsets(self, topics: Any) -> dict[str, dict[int, int]]:
        return {topic: {0: 0} for topic in TOPICS}


class AnsweringResource(TopicsResource):
    def get(self) -> Topics:
        return Answering()


def tick(home: Path, instance: dg.DagsterInstance, cursor: str | None = None, **overrides: Any) -> dg.SensorResult:
    overrides = {"topics": AnsweringResource(home=str(home))} | overrides
    loaded = definitions(home, **overrides)
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, definitions=loaded, sensor_name="supervisor", resources=loaded.resources or {}
    )
    result = supervisor.supervisor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def execute(home: Path, instance: dg.DagsterInstance, result: dg.SensorResult) -> None:
    for request in result.run_requests or []:
        job = definitions(home).resolve_job_def(str(request.job_name))
        job.execute_in_process(
            instance=instance, run_config=request.run_config, tags=dict(request.tags), raise_on_error=False
        )


def older(cursor: str | None, seconds: float) -> str:
    """The cursor as it would be had every attempt in it happened `seconds` earlier."""
    memory = Memory.from_cursor(cursor)
    memory.histories = {
        name: replace(history, attempts=tuple(moment - seconds for moment in history.attempts))
        for name, history in memory.histories.items()
    }
    return memory.to_cursor()


def want_all(home: Path) -> None:
    for name in JOBS:
        processes.set_wanted(home, name, "running")


def requested(result: dg.SensorResult) -> list[tuple[str, list[str]]]:
    found = []
    for request in result.run_requests or []:
        (op,) = request.run_config["ops"].values()
        found.append((str(request.job_name), list(op["config"]["streams"])))
    return found


def test_nothing_is_started_that_is_not_wanted(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    assert requested(tick(stand_in_home, instance)) == []


def test_what_is_wanted_is_started_by_one_run(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    want_all(stand_in_home)
    first = tick(stand_in_home, instance)
    assert requested(first) == [("launch_streams", list(JOBS))]
    execute(stand_in_home, instance, first)
    second = tick(stand_in_home, instance, first.cursor)
    assert requested(second) == []
    passed = {
        event.check_name: event.passed for event in second.asset_events if isinstance(event, dg.AssetCheckEvaluation)
    }
    assert passed["stream_alive"]


def test_a_killed_stream_is_started_again_and_the_stop_of_another_respected(
    stand_in_home: Path, instance: dg.DagsterInstance
) -> None:
    want_all(stand_in_home)
    first = tick(stand_in_home, instance)
    execute(stand_in_home, instance, first)
    for name in ("moving", "trend"):
        process = processes.recorded(stand_in_home, name)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        processes.stop(process)
    processes.set_wanted(stand_in_home, "trend", "stopped")
    # The first start was an attempt too: the second is due five seconds after it.
    second = tick(stand_in_home, instance, older(first.cursor, 5))
    assert requested(second) == [("launch_streams", ["moving"])]
    assert second.run_requests and first.run_requests
    assert second.run_requests[0].run_key != first.run_requests[0].run_key


def test_a_hung_stream_is_restarted(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    want_all(stand_in_home)
    first = tick(stand_in_home, instance)
    execute(stand_in_home, instance, first)
    process = processes.recorded(stand_in_home, "moving")
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        heartbeat = processes.read_heartbeat(stand_in_home, "moving")
        assert heartbeat is not None
        heartbeat["written_at"] = "2026-01-01T00:00:00Z"
        files.write_json(stand_in_home / "run" / "moving.heartbeat.json", heartbeat)
        second = tick(stand_in_home, instance)
        assert requested(second) == [("restart_streams", ["moving"])]
    finally:
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    ("job", "config", "about"),
    [
        ("launch_streams", {"ops": {"launch": {"config": {"streams": ["moving"]}}}}, {"moving"}),
        ("restart_streams", {"ops": {"restart": {"config": {"streams": ["moving", "trend"]}}}}, {"moving", "trend"}),
        ("stop_streams", {}, set(JOBS)),
    ],
)
def test_no_stream_is_requested_while_a_run_about_it_is_unfinished(
    stand_in_home: Path,
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    job: str,
    config: dict[str, Any],
    about: set[str],
) -> None:
    want_all(stand_in_home)
    make_run(instance, definitions(stand_in_home).resolve_job_def(job), status, run_config=config)
    expected = set(JOBS) - about if status in NOT_FINISHED_STATUSES else set(JOBS)
    assert {name for _, names in requested(tick(stand_in_home, instance)) for name in names} == expected


@pytest.mark.parametrize("status", NOT_FINISHED_STATUSES)
def test_materialising_a_table_counts_as_a_run_about_its_stream(
    stand_in_home: Path, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    want_all(stand_in_home)
    job = definitions(stand_in_home).resolve_implicit_global_asset_job_def()
    make_run(instance, job, status, asset_selection=frozenset({dg.AssetKey("higher"), dg.AssetKey("lower")}))
    assert requested(tick(stand_in_home, instance)) == [("launch_streams", ["prices", "moving", "zscore"])]


def test_a_run_that_never_ends_does_not_block_for_ever(
    stand_in_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    want_all(stand_in_home)
    instance.create_run_for_job(
        definitions(stand_in_home).resolve_job_def("launch_streams"), status=dg.DagsterRunStatus.STARTED
    )
    assert requested(tick(stand_in_home, instance)) == []
    monkeypatch.setattr(supervisor, "STREAM_RUN_SECONDS", 0.0)
    assert requested(tick(stand_in_home, instance)) == [("launch_streams", list(JOBS))]


@pytest.mark.parametrize(("behaviour", "attempts"), [("die", [0, 5, 15, 35, 75, 135, 195, 255]), ("refuse", [0])])
def test_what_is_given_up_says_why_holds_up_no_other_and_goes_on_when_it_is_launched(
    stand_in_home: Path, instance: dg.DagsterInstance, behaviour: str, attempts: list[int]
) -> None:
    want_all(stand_in_home)
    (stand_in_home / "moving.behaviour").write_text(behaviour)
    cursor: str | None = None
    starts: dict[str, list[int]] = {name: [] for name in JOBS}
    outcomes: dict[str, tuple[bool | None, str | None]] = {}
    for look in range(60):
        result = tick(stand_in_home, instance, cursor)
        for _, names in requested(result):
            for name in names:
                starts[name].append(5 * look)
        execute(stand_in_home, instance, result)
        outcomes |= alive_checks(result)
        cursor = older(result.cursor, 5)
    assert starts == {name: attempts if name == "moving" else [0] for name in JOBS}
    assert outcomes["zscores"] == (True, "running")
    passed, description = outcomes["moving_stats"]
    assert not passed
    assert description is not None and re.fullmatch(f"given up: .*it was told to {behaviour}", description)
    seen = collect(OrchestrationSettings(home=stand_in_home)).streams
    assert seen["moving"].state == "given_up" and f"it was told to {behaviour}" in str(seen["moving"].error)
    assert {seen[name].state for name in JOBS if name != "moving"} == {"running"}

    # Whoever removes the cause launches it, and it has its attempts again.
    (stand_in_home / "moving.behaviour").unlink()
    job = definitions(stand_in_home).resolve_job_def("launch_streams")
    config = {"ops": {"launch": {"config": {"streams": ["moving"]}}}}
    assert job.execute_in_process(instance=instance, run_config=config).success
    result = tick(stand_in_home, instance, cursor)
    assert requested(result) == []
    assert alive_checks(result)["moving_stats"] == (True, "running")
    assert Memory.from_cursor(result.cursor).histories["moving"].attempts == ()
    assert definitions_streams(stand_in_home).given_up() == {}
    assert collect(OrchestrationSettings(home=stand_in_home)).streams["moving"].state == "running"


def alive_checks(result: dg.SensorResult) -> dict[str, tuple[bool | None, str | None]]:
    return {
        event.asset_key.to_user_string(): (event.passed, event.description)
        for event in result.asset_events
        if isinstance(event, dg.AssetCheckEvaluation) and event.check_name == "stream_alive"
    }


def definitions_streams(home: Path) -> Any:
    resources = definitions(home).resources or {}
    return resources["streams"].get()


def test_nothing_is_attempted_while_kafka_is_away(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    want_all(stand_in_home)
    away = TopicsResource(home=str(stand_in_home), kafka_bootstrap="127.0.0.1:1", timeout_seconds=0.2)
    result = tick(stand_in_home, instance, topics=away)
    assert requested(result) == []
    assert Memory.from_cursor(result.cursor).histories["moving"].attempts == ()
    assert requested(tick(stand_in_home, instance, result.cursor)) == [("launch_streams", list(JOBS))]


def test_a_table_is_materialised_when_it_appears_and_observed_once_a_minute(
    stand_in_home: Path, instance: dg.DagsterInstance
) -> None:
    append(stand_in_home / "lakehouse", rows(range(12)))
    first = tick(stand_in_home, instance)
    (event,) = [event for event in first.asset_events if isinstance(event, dg.AssetMaterialization)]
    assert event.asset_key == dg.AssetKey("zscores")
    assert event.metadata["dagster/row_count"].value == 12
    assert event.metadata["delta_version"].value == 0
    assert event.metadata["last_event_time"].value == pytest.approx(1_746_709_561.1)
    schema = event.metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns] == [
        "symbol", "timestamp", "z_scores", "date",
    ]  # fmt: skip
    assert not reports(tick(stand_in_home, instance, first.cursor))

    instance.report_runless_asset_event(event)
    append(stand_in_home / "lakehouse", rows(range(12, 15)))
    assert not reports(tick(stand_in_home, instance, first.cursor))
    memory = Memory.from_cursor(first.cursor)
    memory.observed_at -= OBSERVE_SECONDS
    (seen,) = reports(tick(stand_in_home, instance, memory.to_cursor()))
    assert isinstance(seen, dg.AssetObservation), "a materialisation would hide the results of the checks"
    assert seen.metadata["dagster/row_count"].value == 15


def reports(result: dg.SensorResult) -> list[Any]:
    """What is told of the table zscores."""
    kinds = dg.AssetMaterialization | dg.AssetObservation
    return [
        event for event in result.asset_events if isinstance(event, kinds) and event.asset_key == dg.AssetKey("zscores")
    ]


def test_unchanged_checks_and_recent_observations_are_not_repeated(
    stand_in_home: Path, instance: dg.DagsterInstance
) -> None:
    first = tick(stand_in_home, instance)
    assert {type(event) for event in first.asset_events} == {dg.AssetCheckEvaluation, dg.AssetObservation}
    assert not tick(stand_in_home, instance, first.cursor).asset_events


def test_a_cursor_of_another_release_is_no_obstacle(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    want_all(stand_in_home)
    assert requested(tick(stand_in_home, instance, '{"form": 0}')) == [("launch_streams", list(JOBS))]


@pytest.mark.parametrize(("trigger", "left"), [("available_now", False), ("continuous", True)])
def test_what_a_killed_run_was_to_end_is_ended_and_a_launched_stream_goes_on(
    stand_in_home: Path, instance: dg.DagsterInstance, trigger: str, left: bool
) -> None:
    here = process_identity.own()
    assert here is not None
    command = ["sleep", "60"]
    stream = processes.start(stand_in_home, "zscore", command, os.environ)
    files.write_json(
        stand_in_home / "run" / "zscore.heartbeat.json",
        {"job": "zscore", "pid": stream.pid, "state": "starting", "trigger": trigger, "queries": {}},
    )
    sender = processes.start(stand_in_home / "replay", "producer", command, os.environ)
    gone = {TAG: here._replace(pid=2**22 + 1).text()}
    loaded = definitions(stand_in_home)
    given: dict[str, Any] = {"status": dg.DagsterRunStatus.STARTED, "tags": gone}
    table = frozenset({dg.AssetKey("zscores")})
    make_run(instance, loaded.resolve_implicit_global_asset_job_def(), asset_selection=table, **given)
    config = {"ops": {"send_recording": {"config": {"file": "ticks.jsonl"}}}}
    make_run(instance, loaded.resolve_job_def("replay"), run_config=config, **given)
    try:
        assert requested(tick(stand_in_home, instance)) == []
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.FAILURE}
        assert processes.alive(stream) is left
        assert not processes.alive(sender)
    finally:
        for process in (stream, sender):
            processes.stop(process, 0)
