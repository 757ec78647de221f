"""Keeping Dagster's own storage small.

Here: removing the runs of good loads after some hours. They come every few seconds, and all that they tell is in the
latest one; without this the run storage grows by gigabytes a month.
Not here: the data of the pipeline, and failed runs, which are kept.
"""

import datetime

import dagster as dg

from orchestration.jobs import load_mongodb

TIDY_SECONDS = 600
KEEP_HOURS = 6
REMOVED_AT_ONCE = 100
"""More than loads come in between; few enough for a tick of a second or two."""


@dg.sensor(
    minimum_interval_seconds=TIDY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    job=load_mongodb,
    description=f"Removes the runs of good loads that are older than {KEEP_HOURS} hours.",
)
def tidy_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Remove the oldest of them; never the newest, which the assets' latest events are of."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=KEEP_HOURS)
    good = [dg.DagsterRunStatus.SUCCESS]
    newest = context.instance.get_run_records(dg.RunsFilter(job_name=load_mongodb.name, statuses=good), limit=1)
    old = context.instance.get_run_records(
        dg.RunsFilter(job_name=load_mongodb.name, statuses=good, created_before=before),
        limit=REMOVED_AT_ONCE,
        ascending=True,
    )
    kept = {record.dagster_run.run_id for record in newest}
    removed = [record.dagster_run.run_id for record in old if record.dagster_run.run_id not in kept]
    for run_id in removed:
        context.instance.compute_log_manager.delete_logs(prefix=[run_id, "compute_logs"])
        context.instance.delete_run(run_id)
    return dg.SkipReason(f"{len(removed)} runs removed")
