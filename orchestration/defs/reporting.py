"""Whether what is found of an asset is told as an observation or as a materialisation.

Dagster lists a check's result only until its asset is materialised again. So tables and collections, which change all
the time, are observed in between, and materialised when they are checked (`orchestration.defs.hourly_checks`). Dagster
judges freshness by materialisations alone: an asset that has changed and that nobody has materialised for longer than
that, because the stack has just been started for example, is materialised all the same.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

LONGEST_SECONDS = 70 * 60.0
"""After so long without a materialisation a change is one: the hourly one has not come."""


def materialised_at(instance: dg.DagsterInstance, asset: str) -> float | None:
    """When an asset was materialised last, in epoch seconds; None when it never was."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    return None if event is None else event.timestamp


def event_of(
    instance: dg.DagsterInstance, asset: str, metadata: Mapping[str, Any], changed_at: float, now: float
) -> dg.AssetObservation | dg.AssetMaterialization:
    """What is told of an asset that has changed last at `changed_at`, both moments in epoch seconds."""
    last = materialised_at(instance, asset)
    due = last is None or (changed_at > last and now - last >= LONGEST_SECONDS)
    event = dg.AssetMaterialization if due else dg.AssetObservation
    return event(asset_key=asset, metadata=metadata)
