"""What a new code server says about the runs of the one before it."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from orchestration.code_server import end_orphaned_runs


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
            assert (ended, found.status) == (1, dg.DagsterRunStatus.CANCELED)
            assert end_orphaned_runs(instance) == 0
