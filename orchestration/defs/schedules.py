"""What runs by the clock."""

import dagster as dg

from orchestration.defs.charts import PICTURE_MINUTES, changed, draw_last_hour
from orchestration.defs.hourly_checks import check_everything
from orchestration.defs.maintenance import maintain_tables
from orchestration.defs.resources import LakehouseResource
from orchestration.monitoring.check_schedule import MINUTE_OF_HOUR

daily_maintenance = dg.ScheduleDefinition(
    name="daily_maintenance",
    job=maintain_tables,
    # Tables are partitioned by UTC day: shortly after midnight the whole of yesterday is made few files, once.
    cron_schedule="23 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Maintains the Delta tables and the collections once a day, when the day before is complete.",
)

hourly_checks = dg.ScheduleDefinition(
    name="hourly_checks",
    job=check_everything,
    # What is checked is the last hour.
    cron_schedule=f"{MINUTE_OF_HOUR} * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Materialises tables and collections and evaluates all their checks, once an hour. Soon after the "
    "streams have started the sensor first_checks does.",
)


@dg.schedule(
    name="pictures",
    job=draw_last_hour,
    cron_schedule=f"*/{PICTURE_MINUTES} * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Draws the last hour while there is something new to see.",
)
def pictures(lakehouse: LakehouseResource) -> dg.RunRequest | dg.SkipReason:
    """A run if any table has changed."""
    if not changed(lakehouse.get(), PICTURE_MINUTES):
        return dg.SkipReason(f"no table has changed within {PICTURE_MINUTES} minutes")
    return dg.RunRequest()


ALL_SCHEDULES = (daily_maintenance, hourly_checks, pictures)
