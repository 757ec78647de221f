"""What keeps a stack from doing what it is there for although its processes run: looked up, without asking Dagster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from deltalake.exceptions import DeltaError

from orchestration.lakehouse.tables import Lakehouse, TableVersion
from orchestration.monitoring import dagster_records, last_seen, stack_health
from orchestration.serving.load import first_version
from orchestration.serving.mongo import COLLECTIONS, TABLE, Loaded
from orchestration.settings import OrchestrationSettings


def work_not_done(
    settings: OrchestrationSettings,
    zscores: TableVersion | None,
    loaded: Mapping[str, Loaded] | None,
    *,
    dagster_down: bool,
    began_at: float | None,
) -> list[str]:
    """What is not done that should be, in sentences.

    `zscores`, `loaded`: the table and what MongoDB has of it, None when not known; `began_at`: when a local stack's
    Dagster was started, None where there is none.
    """
    home, now = settings.home, time.time()
    found = stack_health.full_disks(_free([home, settings.lakehouse, settings.checkpoints]))
    if dagster_down:
        return found  # which is told, and all the rest follows from it
    sensors = {name: last_seen.last(home, name) for name in (last_seen.SUPERVISOR, last_seen.LOAD_SENSOR)}
    found += stack_health.sensors_at_rest(sensors, began_at, now, f"daemon.log and code-server.log in {home / 'logs'}")
    if began_at is not None:
        records = home / "dagster"
        heartbeats = dagster_records.daemon_heartbeats(records)
        found += stack_health.silent_daemons(heartbeats, began_at, now, str(home / "logs" / "daemon.log"))
        found += stack_health.failing_ticks(dagster_records.failed_ticks(records), began_at)
    if loaded is not None and zscores is not None and (began_at is not None or any(sensors.values())):
        missing = _missing_since(settings, zscores, loaded)
        load, sensor = last_seen.last(home, last_seen.LOAD), sensors[last_seen.LOAD_SENSOR]
        found += stack_health.load_at_rest(missing, load, sensor, began_at, now)
    return found


def _missing_since(
    settings: OrchestrationSettings, version: TableVersion, loaded: Mapping[str, Loaded]
) -> float | None:
    """When the first version of the table was committed that is not in every collection."""
    records = [loaded.get(collection) for collection in COLLECTIONS.values()]
    first = min(first_version(record, version.table_id, version.version) for record in records)
    if first > version.version:
        return None
    try:
        committed_at = Lakehouse(settings.lakehouse).committed_at(TABLE, first)
    except (DeltaError, OSError):
        return None  # the table's version could be read a moment ago: the next look will tell
    return None if committed_at is None else committed_at.timestamp()


def _free(places: Iterable[Path | str]) -> dict[str, int | None]:
    """Bytes left to whoever may write, 0 where no file can be made any more, by local folder; each disk once."""
    free: dict[str, int | None] = {}
    disks = set()
    for place in places:
        folder = Path(str(place).removeprefix("file://"))
        try:
            # A URI of another kind is no folder that is there.
            if (disk := folder.stat().st_dev) in disks:
                continue
            disks.add(disk)
            room = os.statvfs(folder)
        except OSError:
            continue
        no_files = room.f_files > 0 and room.f_favail == 0
        free[str(folder)] = 0 if no_files else room.f_bavail * room.f_frsize
    return free
