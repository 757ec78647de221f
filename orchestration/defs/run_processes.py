"""The processes of Dagster's runs: noted at their start, and the runs reported as failed whose process is gone.

Dagster does not see every end of a process: the thread of its code server that looks for them ends with its own first
error (a full disk, a locked database), and a code server that was killed tells nobody. A run that seems to be under way
keeps the sensors from requesting another one. So whoever asks here for unfinished runs has them judged by their
processes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG

from orchestration.local import process_identity
from orchestration.local.process_identity import ProcessIdentity

TAG = "tickhouse/process"
"""The tag of a run that has the identity of its process."""
EXECUTING = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
"""The statuses of a run that has a process. One that is queued, or not launched yet, has none."""
_GONE = "The process of this run is gone (pid {}): it was killed, or ended without saying how the run went."


class Unfinished(NamedTuple):
    """The runs that were unfinished at a look."""

    records: list[dg.RunRecord]
    """Those that may still be under way."""
    ended: list[dg.DagsterRun]
    """Those whose process was gone; reported by this look."""


class _NotingExecutor(dg.Executor):
    """Executes the steps in the run's own process, which is noted first."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> RetryMode:
        """As Dagster's."""
        return self._executor.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """As Dagster's."""
        identity = process_identity.own()
        if identity is not None:
            plan_context.instance.add_run_tags(plan_context.run_id, {TAG: identity.text()})
        yield from self._executor.execute(plan_context, execution_plan)


def _create_executor(context: dg.InitExecutorContext) -> dg.Executor:
    create: Any = dg.in_process_executor.executor_creation_fn
    return _NotingExecutor(create(context))


noting_executor = dg.ExecutorDefinition(
    name=dg.in_process_executor.name,
    config_schema=dg.in_process_executor.config_schema,  # type: ignore[arg-type]
    executor_creation_fn=_create_executor,
    description="Execute all steps in the run's own process, which is noted as a tag of the run.",
)
"""A process for each step would cost more than the steps do."""


def is_gone(
    status: dg.DagsterRunStatus, noted: ProcessIdentity | None, launched: int | None, here: ProcessIdentity | None
) -> bool:
    """Whether an unfinished run's process is known to be gone.

    `noted`: the process, if the run has come so far as to note it; `launched`: else the process id that the code server
    of this machine reported; `here`: the identity of the process that looks.
    """
    if status not in EXECUTING:
        return False
    if noted is not None:
        return process_identity.running(noted, here) is False
    return launched is not None and not process_identity.is_running(launched)


def location_of(context: dg.SensorEvaluationContext) -> str | None:
    """The code location that a sensor is of; None when it is called by itself."""
    origin = context.code_location_origin
    return origin.location_name if origin is not None else None


def is_of(run: dg.DagsterRun, location: str | None) -> bool:
    """Whether a run is of this code location: an instance may have others, with jobs of the same names."""
    origin = run.remote_job_origin
    return origin is None or location is None or origin.location_name == location


def unfinished_runs(instance: dg.DagsterInstance, location: str | None) -> Unfinished:
    """The unfinished runs of a code location, in whatever status; those whose process is gone are reported by now."""
    here = process_identity.own()
    found = Unfinished([], [])
    for record in instance.get_run_records(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        run = record.dagster_run
        if not is_of(run, location):
            continue
        noted, launched = noted_process(run), _launched(instance, run)
        if not is_gone(run.status, noted, launched, here):
            found.records.append(record)
            continue
        # The process may have reported its end between the two looks; now it cannot any more.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and not now.is_finished:
            report_ended(instance, now, _GONE.format(noted.pid if noted else launched))
            found.ended.append(now)
    return found


def noted_process(run: dg.DagsterRun) -> ProcessIdentity | None:
    """The process that a run has noted."""
    return process_identity.parse(run.tags.get(TAG, ""))


def report_ended(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Report a run that nobody executes any more: as cancelled if that was asked for or it never began, else failed."""
    if run.status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED):
        instance.report_run_failed(run, reason)
    else:
        instance.report_run_canceled(run, reason)


def _launched(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """The process id that a code server told when it began a run which has noted none."""
    if run.status not in EXECUTING or TAG in run.tags or GRPC_INFO_TAG not in run.tags:
        return None
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        told = event.engine_event_data.metadata.get("pid") if event is not None else None
        if told is not None and str(told.value).isdigit():
            return int(str(told.value))
    return None
