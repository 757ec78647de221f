"""What a new code server tells Dagster: the runs of the one before it are over, and its failures forgotten."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from orchestration.defs import run_processes
from orchestration.defs.supervisor import supervisor
from orchestration.defs.supervisor_cursor import Memory, Seen
from orchestration.local import process_identity
from orchestration.stack.code_server import end_orphaned_runs, forget_attempts
from orchestration.supervision.restart_policy import History


@dg.job
def nothing() -> None:
    """Does nothing."""


UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Without QUEUED: the local stack has no queue."""


@pytest.mark.parametrize("status", [*UNDER_WAY, *FINISHED_STATUSES])
def test_what_seems_to_be_under_way_is_over_and_what_is_over_stays_as_it_is(status: dg.DagsterRunStatus) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(nothing, status=status)
        ended = end_orphaned_runs(instance)
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        if status in FINISHED_STATUSES:
            assert (ended, found.status) == (0, status)
        else:
            executed = status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
            assert (ended, found.status) == (
                1,
                dg.DagsterRunStatus.FAILURE if executed else dg.DagsterRunStatus.CANCELED,
            )
            assert end_orphaned_runs(instance) == 0


def test_a_run_that_somebody_executes_otherwise_is_left_alone() -> None:
    here = process_identity.own()
    assert here is not None
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(
            nothing, status=dg.DagsterRunStatus.STARTED, tags={run_processes.TAG: here.text()}
        )
        assert end_orphaned_runs(instance) == 0
        assert run_processes.unfinished_runs(instance, None).ended == []
        found = instance.get_run_by_id(run.run_id)
        assert found is not None and found.status == dg.DagsterRunStatus.STARTED


def sensor_state(name: str, cursor: str | None) -> InstigatorState:
    location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name="tickhouse")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    data = SensorInstigatorData(last_run_key="k", min_interval=4, cursor=cursor)
    return InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)


def test_streams_that_were_given_up_are_tried_anew_and_all_else_is_remembered() -> None:
    tables = {"prices": Seen("a", 3, 2.5)}
    tired = Memory({"moving": History((1.0, 2.0), "disk full"), "trend": History((3.0,))}, tables, observed_at=4.5)
    with dg.DagsterInstance.local_temp() as instance:
        for name in (supervisor.name, "load_new_zscores"):
            instance.add_instigator_state(sensor_state(name, tired.to_cursor()))
        forget_attempts(instance)
        found = {
            state.instigator_name: state.sensor_instigator_data
            for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        }
    assert found == {
        supervisor.name: SensorInstigatorData(
            last_run_key="k", min_interval=4, cursor=Memory(tables=tables, observed_at=4.5).to_cursor()
        ),
        "load_new_zscores": SensorInstigatorData(last_run_key="k", min_interval=4, cursor=tired.to_cursor()),
    }


@pytest.mark.parametrize("cursor", [None, "of another release"])
def test_a_supervisor_without_a_readable_memory_is_no_obstacle(cursor: str | None) -> None:
    with dg.DagsterInstance.local_temp() as instance:
        forget_attempts(instance)
        instance.add_instigator_state(sensor_state(supervisor.name, cursor))
        forget_attempts(instance)
