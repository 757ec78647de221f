"""Everything that knows Dagster: assets, jobs, sensors, checks and schedules."""
