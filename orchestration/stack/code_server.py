"""`python -m orchestration.stack.code_server PORT`: serves the definitions to Dagster's daemon and webserver.

Runs are descendants of the code server and end with it, however it ends. Nobody tells Dagster, and a run that seems
to be under way keeps the sensors from requesting another one: streams would stay down and z-scores would not be loaded.
"""

from __future__ import annotations

import runpy
import sys

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorType
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from orchestration.defs.run_processes import is_of, noted_process, report_ended
from orchestration.defs.supervisor_cursor import Memory
from orchestration.local import process_identity
from orchestration.local.ports import LOOPBACK
from orchestration.stack.dagster_internals import DEFINITIONS, LOCATION, fork_runs, keep_revisions

_SUPERVISOR = "supervisor"


def end_orphaned_runs(instance: dg.DagsterInstance) -> int:
    """Report the unfinished runs as ended; returns how many. To be called while no code server runs.

    One that somebody executes by other means, and whose process is seen to run, is left alone.
    """
    here = process_identity.own()
    orphans = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
        if is_of(run, LOCATION)
        and ((process := noted_process(run)) is None or process_identity.running(process, here) is not True)
    ]
    for run in orphans:
        report_ended(instance, run, "The run ended, unfinished, with the code server that executed it.")
    return len(orphans)


def forget_attempts(instance: dg.DagsterInstance) -> None:
    """Let the supervisor forget how often it has started streams, and which it has given up.

    Whoever starts a stack has mended what was wrong, and a stream that ended with the stack has not failed.
    """
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.sensor_instigator_data
        if state.instigator_name != _SUPERVISOR or data is None:
            continue
        try:
            memory = Memory.from_cursor(data.cursor)
        except ValueError:
            continue  # of another release: the sensor itself starts without it, and says so
        memory.histories.clear()
        instance.update_instigator_state(state.with_data(data._replace(cursor=memory.to_cursor())))


def main() -> None:
    """Serve until SIGTERM."""
    fork_runs()
    keep_revisions()
    port = sys.argv[1]
    with dg.DagsterInstance.get() as instance:
        end_orphaned_runs(instance)
        forget_attempts(instance)
        folder = instance.root_directory
    sys.argv = ["dagster", "api", "grpc", "--module-name", DEFINITIONS, "--working-directory", folder]
    sys.argv += ["--host", LOOPBACK, "--port", port]
    runpy.run_module("dagster", run_name="__main__")


if __name__ == "__main__":
    main()
