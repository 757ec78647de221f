"""Keeping Dagster's own storage small.

Good runs of what runs by itself every few seconds or minutes are removed after some hours: all that they tell is in the
latest one, and the run storage would grow by gigabytes a month. Failed runs are kept.
"""

import datetime

import dagster as dg

from orchestration.defs.charts import draw_last_hour
from orchestration.defs.load import load_mongodb
from orchestration.defs.run_processes import is_of, location_of

TIDY_SECONDS = 600
KEEP_HOURS = 6
REMOVED_AT_ONCE = 100
"""More than loads come in between; few enough for a tick of a second or two."""


FREQUENT = (load_mongodb.name, draw_last_hour.name)


@dg.sensor(
    minimum_interval_seconds=TIDY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    job=load_mongodb,
    description=f"Removes the good runs of {' and '.join(FREQUENT)} that are older than {KEEP_HOURS} hours.",
)
def tidy_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Remove the oldest of them; never the newest of a job, which the assets' latest events are of."""
    removed = sum(_tidy(context.instance, job, location_of(context)) for job in FREQUENT)
    return dg.SkipReason(f"{removed} runs removed")


def _tidy(instance: dg.DagsterInstance, job: str, location: str | None) -> int:
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=KEEP_HOURS)
    good = [dg.DagsterRunStatus.SUCCESS]
    newest = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=good), limit=1)
    old = instance.get_run_records(
        dg.RunsFilter(job_name=job, statuses=good, created_before=before), limit=REMOVED_AT_ONCE, ascending=True
    )
    kept = {record.dagster_run.run_id for record in newest}
    removed = [
        record.dagster_run.run_id
        for record in old
        if record.dagster_run.run_id not in kept and is_of(record.dagster_run, location)
    ]
    for run_id in removed:
        instance.compute_log_manager.delete_logs(prefix=[run_id, "compute_logs"])
        instance.delete_run(run_id)
    return len(removed)
