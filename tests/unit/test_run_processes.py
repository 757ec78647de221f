"""Whether a process that was noted still runs, and what follows for its run: tables of cases, and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG

from orchestration.defs.run_processes import EXECUTING, TAG, is_gone, unfinished_runs
from orchestration.local import process_identity
from orchestration.local.process_identity import ProcessIdentity
from orchestration.stack.code_server import end_orphaned_runs
from tests.dagster.conftest import make_run

HERE = process_identity.own()
NOBODY = 2**22 + 1
"""No Linux gives a process that id."""


def here() -> ProcessIdentity:
    assert HERE is not None
    return HERE


@dg.job
def nothing() -> None:
    """Does nothing."""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"pid": NOBODY}, False),
        ({"started": 1}, False),  # the process id is another's by now
        ({"boot": "another"}, False),  # the machine was started anew
        ({"boot": "another", "namespace": "another"}, False),
        ({"host": "renamed"}, True),
        ({"host": "another", "namespace": "another"}, None),  # another container
        ({"host": "another", "boot": "another"}, None),  # another machine
        ({"namespace": "another"}, None),
    ],
)
def test_a_noted_process(change: dict[str, object], expected: bool | None) -> None:
    noted = here()._replace(**change)  # type: ignore[arg-type]
    assert process_identity.parse(noted.text()) == noted
    assert process_identity.running(noted, here()) is expected
    assert process_identity.running(noted, None) is None


@pytest.mark.parametrize("text", ["", "1 2 3", "x 2 boot ns host", "1 2 boot ns host more"])
def test_what_is_no_identity_is_none(text: str) -> None:
    assert process_identity.parse(text) is None


@pytest.mark.parametrize("status", list(dg.DagsterRunStatus))
def test_a_run_is_gone_with_its_process(status: dg.DagsterRunStatus) -> None:
    executing = status in EXECUTING
    dead, living = here()._replace(pid=NOBODY), here()
    assert is_gone(status, dead, None, here()) is executing
    assert is_gone(status, None, NOBODY, here()) is executing
    assert not is_gone(status, living, None, here())
    assert not is_gone(status, None, os.getpid(), here())
    assert not is_gone(status, None, None, here()), "nothing is known of it"
    assert not is_gone(status, dead._replace(host="another", namespace="another"), None, here())


def test_a_process_that_has_ended_and_is_not_reaped_does_not_run() -> None:
    child = subprocess.Popen(["sleep", "60"])
    assert process_identity.is_running(child.pid)
    child.send_signal(signal.SIGSTOP)
    assert process_identity.is_running(child.pid), "suspended is not ended"
    child.kill()
    deadline = time.monotonic() + 10
    while process_identity.is_running(child.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.wait()


@pytest.mark.parametrize("status", list(dg.DagsterRunStatus))
@pytest.mark.parametrize("told", ["tag", "code server"])
def test_a_run_whose_process_is_gone_is_reported_with_the_reason(status: dg.DagsterRunStatus, told: str) -> None:
    expected = {
        dg.DagsterRunStatus.STARTING: dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.STARTED: dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELING: dg.DagsterRunStatus.CANCELED,
    }
    tags = {TAG: here()._replace(pid=NOBODY).text()} if told == "tag" else {GRPC_INFO_TAG: "{}"}
    with dg.DagsterInstance.ephemeral() as instance:
        run = make_run(instance, nothing, status, tags=tags)
        if told == "code server":
            instance.report_engine_event("Started process for run", run, EngineEventData.in_process(NOBODY))
        found = unfinished_runs(instance, None)
        after = instance.get_run_by_id(run.run_id)
        assert after is not None and after.status == expected.get(status, status)
        assert [ended.run_id for ended in found.ended] == ([run.run_id] if status in expected else [])
        assert len(found.records) == (status in NOT_FINISHED_STATUSES and status not in expected)
        if status in expected:
            said = [entry.user_message or entry.message for entry in instance.all_logs(run.run_id)]
            assert any(f"is gone (pid {NOBODY})" in each for each in said), said


def test_runs_of_other_code_locations_are_nobody_elses_business() -> None:
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("another"), "r"), nothing.name)
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(
            nothing,
            status=dg.DagsterRunStatus.STARTED,
            tags={GRPC_INFO_TAG: "{}"},
            remote_job_origin=origin,
            job_code_origin=None,
        )
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(NOBODY))
        assert unfinished_runs(instance, "tickhouse") == ([], [])
        assert end_orphaned_runs(instance) == 0
        assert [ended.run_id for ended in unfinished_runs(instance, "another").ended] == [run.run_id]
