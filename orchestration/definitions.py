"""The Dagster definitions of the pipeline, assembled.

Here: `build_definitions`, which takes other resources for tests and other deployments, and `defs`, what Dagster loads.
Not here: anything that is done. Loading this module reads settings and starts, connects to and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from orchestration.assets import all_assets, health
from orchestration.history import backfill_results, hourly_reconcile, reconcile_results, reconcile_tables
from orchestration.jobs import STREAM_JOBS, load_mongodb, maintain_tables
from orchestration.resources import build_resources
from orchestration.schedules import daily_maintenance
from orchestration.sensors import ALL_SENSORS
from orchestration.settings import OrchestrationSettings


def build_definitions(
    settings: OrchestrationSettings, overrides: Mapping[str, dg.ConfigurableResource[Any]] | None = None
) -> dg.Definitions:
    """Everything for the home of `settings`; `overrides` replace resources by name."""
    return dg.Definitions(
        assets=all_assets(),
        asset_checks=[health, reconcile_tables],
        jobs=[*STREAM_JOBS, load_mongodb, maintain_tables, backfill_results, reconcile_results],
        schedules=[daily_maintenance, hourly_reconcile],
        sensors=list(ALL_SENSORS),
        resources=build_resources(settings, overrides),
        # A process for each step would cost more than the steps do.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions for the home that the environment names. Raises SettingsError naming what is wrong."""
    return build_definitions(OrchestrationSettings.read())
