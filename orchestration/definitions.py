"""The Dagster definitions of the pipeline, assembled.

Loading this module reads settings and starts, connects to and waits for nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from orchestration.alert_sensor import alert_sensor
from orchestration.assets import all_assets
from orchestration.check_assets import check_tables, health, table_content
from orchestration.drain_job import drain_streams
from orchestration.first_checks import first_checks
from orchestration.history import backfill_results, reconcile_results, reconcile_tables
from orchestration.hourly_job import check_everything
from orchestration.jobs import STREAM_JOBS, load_mongodb, maintain_tables
from orchestration.picture_job import draw_last_hour
from orchestration.replay_job import replay
from orchestration.resources import build_resources
from orchestration.run_processes import noting_executor
from orchestration.schedules import ALL_SCHEDULES
from orchestration.sensors import ALL_SENSORS
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
