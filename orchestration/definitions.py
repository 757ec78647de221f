"""The Dagster definitions of the pipeline, assembled.

Loading this module reads settings and starts, connects to and waits for nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from orchestration.defs.alerts import alert_sensor
from orchestration.defs.assets import all_assets
from orchestration.defs.charts import draw_last_hour
from orchestration.defs.checks import check_tables, health, table_content
from orchestration.defs.drain import drain_streams
from orchestration.defs.hourly_checks import check_everything
from orchestration.defs.load import load_mongodb
from orchestration.defs.maintenance import maintain_tables
from orchestration.defs.recompute import backfill_results, reconcile_results, reconcile_tables
from orchestration.defs.replay import replay
from orchestration.defs.resources import build_resources
from orchestration.defs.run_processes import noting_executor
from orchestration.defs.schedules import ALL_SCHEDULES
from orchestration.defs.startup_checks import first_checks
from orchestration.defs.stream_jobs import STREAM_JOBS
from orchestration.defs.supervisor import ALL_SENSORS
from orchestration.settings import OrchestrationSettings

# Dagster passes it itself, whenever it binds resources to a sensor's jobs: the code server's log would begin with it.
warnings.filterwarnings(
    "ignore", message="Parameter `owners` of initializer `SensorDefinition", category=dg.BetaWarning
)


def build_definitions(
    settings: OrchestrationSettings, overrides: Mapping[str, dg.ConfigurableResource[Any]] | None = None
) -> dg.Definitions:
    """Everything for the home of `settings`; `overrides` replace resources by name."""
    return dg.Definitions(
        assets=all_assets(settings),
        asset_checks=[health, table_content, reconcile_tables],
        jobs=[
            *STREAM_JOBS,
            drain_streams,
            replay,
            load_mongodb,
            maintain_tables,
            check_everything,
            check_tables,
            reconcile_results,
            backfill_results,
            draw_last_hour,
        ],
        schedules=list(ALL_SCHEDULES),
        sensors=[*ALL_SENSORS, first_checks, alert_sensor],
        resources=build_resources(settings, overrides),
        executor=noting_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions for the home that the environment names. Raises SettingsError naming what is wrong."""
    return build_definitions(OrchestrationSettings.read())
