"""What a stack does not do although its processes run, as tables of cases; and the records as Dagster writes them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType, TickData, TickStatus
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo  # type: ignore[attr-defined]

from orchestration.monitoring import dagster_records, last_seen, stack_health
from orchestration.monitoring.dagster_records import FailedTicks
from orchestration.monitoring.last_seen import LOAD_SENSOR, SUPERVISOR, Look
from tests.unit.test_stack_code_server import sensor_state

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("look", "began_at", "at_rest"),
    [
        (None, None, False),  # no stack of this machine: nothing is known
        (None, NOW - 59, False),  # just started
        (None, NOW - 61, True),  # the code server was never reached
        (Look(NOW - 5, "running"), NOW - 999, False),
        (Look(NOW - 61, "running"), NOW - 999, True),
        (Look(NOW - 999, "running"), NOW - 5, False),  # the look is an earlier stack's
        (Look(NOW - 999, "running"), None, True),
        (Look(NOW + 999, "running"), None, True),  # not since the clock was set back
        (Look(NOW + 999, "running"), NOW - 5, True),
        (Look(NOW - 61, "running"), NOW + 999, True),  # the stack was started before the clock was set back
        (Look(NOW - 5, "running"), NOW + 999, False),
        (Look(NOW + 1, "running"), NOW - 999, False),  # a small correction
    ],
)
def test_a_sensor_that_does_not_look(look: Look | None, began_at: float | None, at_rest: bool) -> None:
    for name in (SUPERVISOR, LOAD_SENSOR):
        told = stack_health.sensors_at_rest({name: look}, began_at, NOW, "the logs")
        assert bool(told) is at_rest
        assert all(name in sentence and "the logs" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("missing", "load", "began", "at_rest"),
    [
        (None, None, 999, False),  # all is loaded
        (30, None, 999, False),
        (61, None, 999, True),
        (61, 5, 999, False),  # a long load
        (61, 61, 999, True),  # that was killed
        (999, None, 30, False),  # the stack has just started
        (999, None, None, True),
        # The clock was set back after the commit, after the last load, or after the start.
        (-999, None, 999, True),
        (-999, 5, 999, False),
        (61, -999, 999, True),
        (61, None, -999, True),
        (30, None, -999, False),
    ],
)
def test_a_load_that_does_not_get_on(
    missing: float | None, load: float | None, began: float | None, at_rest: bool
) -> None:
    told = stack_health.load_at_rest(
        None if missing is None else NOW - missing,
        None if load is None else Look(NOW - load, "writing"),
        Look(NOW - 5, "given up after 12 failed loads"),
        None if began is None else NOW - began,
        NOW,
    )
    assert bool(told) is at_rest
    assert all("given up after 12 failed loads" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("age", "began", "silent"),
    [
        (30, 999, False),
        (121, 999, True),
        (999, 30, False),
        # The clock was set back after the report, or after the start.
        (-999, 999, True),
        (121, -999, True),
        (30, -999, False),
    ],
)
def test_a_daemon_that_does_not_report(age: float, began: float, silent: bool) -> None:
    assert bool(stack_health.silent_daemons({"SENSOR": NOW - age}, NOW - began, NOW, "log")) is silent


def test_what_failed_before_the_stack_began_is_of_no_interest() -> None:
    failed = [FailedTicks("alerts", "no module", NOW - 5)]
    assert stack_health.failing_ticks(failed, NOW) == []
    (told,) = stack_health.failing_ticks(failed, NOW - 9)
    assert "alerts fails at each tick: no module" in told


def test_a_full_disk_is_told() -> None:
    (told,) = stack_health.full_disks({"/a": 5_000_000, "/b": 10**12, "/c": None})
    assert "/a is full (5 MB are left)" in told


def test_looks_are_noted_and_what_is_no_look_is_none(tmp_path: Path) -> None:
    assert last_seen.last(tmp_path, SUPERVISOR) is None
    last_seen.note(tmp_path, SUPERVISOR, "all running")
    seen = last_seen.last(tmp_path, SUPERVISOR)
    assert seen is not None and seen.said == "all running"
    (tmp_path / "run" / f"{SUPERVISOR}.look.json").write_text('{"at": "then"}')
    assert last_seen.last(tmp_path, SUPERVISOR) is None
    (tmp_path / "file").touch()
    last_seen.note(tmp_path / "file", SUPERVISOR, "a home that cannot be written to")


@dg.job
def nothing() -> None:
    """Does nothing."""


def tick(number: int, status: TickStatus) -> TickData:
    told = SerializableErrorInfo("amiss\nmore of it", [], "Error") if status == TickStatus.FAILURE else None
    return TickData("o", "alerts", InstigatorType.SENSOR, status, NOW + number, [], [], selector_id="s", error=told)


def test_dagsters_records_are_read_as_dagster_writes_them(tmp_path: Path) -> None:
    assert (dagster_records.daemon_heartbeats(tmp_path), dagster_records.failed_ticks(tmp_path)) == ({}, [])
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(NOW + 0.25, "SENSOR", "id", []))
        state = sensor_state("alerts", None).with_status(InstigatorStatus.RUNNING)
        instance.add_instigator_state(state)
        for number, status in enumerate((TickStatus.SUCCESS, TickStatus.FAILURE, TickStatus.FAILURE)):
            instance.create_tick(tick(number, status)._replace(selector_id=state.selector_id))
        assert dagster_records.failed_ticks(tmp_path) == []
        for status in (TickStatus.FAILURE, TickStatus.STARTED):
            instance.create_tick(tick(9, status)._replace(selector_id=state.selector_id))
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.SUCCESS)
        assert dagster_records.failed_ticks(tmp_path) == [FailedTicks("alerts", "amiss", NOW + 9)]
        assert dagster_records.daemon_heartbeats(tmp_path) == {"SENSOR": NOW + 0.25}
        (found,) = dagster_records.unfinished_runs(tmp_path)
        record = instance.get_run_record_by_id(run.run_id)
        assert record is not None
        assert found == (run.run_id, "nothing", record.create_timestamp.timestamp())


def test_records_of_another_form_are_not_known(tmp_path: Path) -> None:
    for name in ("history/runs.db", "schedules/schedules.db"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("no database")
    assert (dagster_records.daemon_heartbeats(tmp_path), dagster_records.failed_ticks(tmp_path)) == ({}, [])
