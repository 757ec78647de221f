"""A run of a job named load_mongodb that never ends, in a process of its own: `main(FOLDER)`.

It is executed as definitions execute theirs, and tells by a file that it is at work.
"""

import time
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from orchestration.defs.run_processes import noting_executor

AT_WORK = "at-work"


@dg.op
def wait(context: dg.OpExecutionContext) -> None:
    """Never ends."""
    (Path(context.instance.root_directory) / AT_WORK).touch()
    time.sleep(600)


@dg.job(name="load_mongodb", executor_def=noting_executor)
def endless() -> None:
    """One step."""
    wait()


def main(folder: str) -> None:
    """Execute it on the instance of that folder."""
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(folder)) as instance:
        dg.execute_job(dg.reconstructable(endless), instance=instance)
