"""The sensor that has everything checked soon after the streams have started.

It remembers nothing: how long the streams run and when the job was launched last is all that it needs.
"""

import time

import dagster as dg

from orchestration.defs.hourly_checks import check_everything
from orchestration.defs.resources import StreamsResource
from orchestration.monitoring.check_schedule import FIRST_MINUTES, MOMENTS, first_checks_due
from tickhouse.contract.topology import JOBS

LOOK_SECONDS = 29  # a second before the daemon looks, as for the other sensors


@dg.sensor(
    job=check_everything,
    minimum_interval_seconds=LOOK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Launches {check_everything.name} soon after the streams have started; in all it runs {MOMENTS}.",
)
def first_checks(context: dg.SensorEvaluationContext, streams: StreamsResource) -> dg.RunRequest | dg.SkipReason:
    """A run if one of the first moments has passed."""
    seen = [streams.get().observe(name).running_seconds for name in JOBS]
    # One that crashed and was started again makes no new beginning of the others.
    running = max((seconds for seconds in seen if seconds is not None), default=None)
    now = time.time()
    records = context.instance.get_run_records(dg.RunsFilter(job_name=check_everything.name), limit=1)
    since_last = now - records[0].create_timestamp.timestamp() if records else None
    if first_checks_due(running, since_last):
        return dg.RunRequest(run_key=f"checks@{now:.3f}")
    if running is None:
        return dg.SkipReason("no stream runs")
    over = running >= 60 * FIRST_MINUTES[-1]
    return dg.SkipReason("the first checks are done: the schedule goes on" if over else "it is not time yet")
