"""What runs by the clock.

Here: when. Not here: what a run does (`orchestration.jobs`), or what follows from how things are
(`orchestration.sensors`).
"""

import dagster as dg

from orchestration.jobs import maintain_tables

daily_maintenance = dg.ScheduleDefinition(
    name="daily_maintenance",
    job=maintain_tables,
    # Tables are partitioned by UTC day: shortly after midnight the whole of yesterday is made few files, once.
    cron_schedule="23 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Maintains the Delta tables once a day, when the day before is complete.",
)
