"""Whether a stack does what it is there for, beyond that its processes exist: pure, sentences for `tickhouse
status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestration.monitoring.dagster_records import FailedTicks
from orchestration.monitoring.last_seen import LOAD_SENSOR, SUPERVISOR, Look

LOOK_SECONDS = 60.0
"""A sensor that looks every 5 or 15 seconds and has not for so long does not look any more."""
DAEMON_SECONDS = 120.0
"""A daemon of Dagster's reports every 30 seconds."""
LOAD_SECONDS = 60.0
"""So long may z-scores be in the table and not in MongoDB, unless a load is seen to be getting on."""
LEAST_FREE_BYTES = 100_000_000
CLOCK_SECONDS = 5.0
"""A moment that is further ahead was noted before the clock was set back, and says nothing of how long ago it was."""
_WORK = {
    SUPERVISOR: "streams that end are not started again",
    LOAD_SENSOR: "new z-scores are not loaded into MongoDB",
}


def ahead(moment: float | None, now: float) -> bool:
    """Whether a moment was noted before the clock was set back. Epoch seconds."""
    return moment is not None and moment - now > CLOCK_SECONDS


def sensors_at_rest(looks: Mapping[str, Look | None], began_at: float | None, now: float, logs: str) -> list[str]:
    """The sensors that have not looked for too long.

    `looks`: the last of each; `began_at`: when the local stack's Dagster was started, None where there is none: a
    sensor that has never looked is then nobody's fault. Epoch seconds.
    """
    found = []
    for name, look in looks.items():
        if look is not None and ahead(look.at, now):
            found.append(
                f"Dagster's sensor {name} has not looked since the clock was set back by {look.at - now:.0f} s or more"
                f", {_WORK[name]}: Dagster's daemon begins anew within seconds, otherwise see {logs}"
            )
            continue
        moments = (look.at if look else None, began_at)
        last = max((moment for moment in moments if moment is not None and not ahead(moment, now)), default=now)
        if now - last > LOOK_SECONDS:
            found.append(
                f"Dagster's sensor {name} has not looked for {now - last:.0f} s, {_WORK[name]}: Dagster hangs or does "
                f"not reach its code server, see {logs}"
            )
    return found


def silent_daemons(heartbeats: Mapping[str, float], began_at: float, now: float, logs: str) -> list[str]:
    """The daemons of a local stack's Dagster, begun at `began_at`, that have not reported for too long."""
    began_at = 0.0 if ahead(began_at, now) else began_at
    ages = {name: now - max(at, began_at) for name, at in heartbeats.items()}
    return [
        f"Dagster's daemon {name} has not reported "
        + ("since the clock was set back" if ahead(heartbeats[name], now) else f"for {age:.0f} s")
        + f": see {logs}"
        for name, age in ages.items()
        if age > DAEMON_SECONDS or ahead(heartbeats[name], now)
    ]


def failing_ticks(failed: Iterable[FailedTicks], began_at: float) -> list[str]:
    """The sensors and schedules that fail each time. What failed before `began_at` may be of an earlier release."""
    return [
        f"Dagster's {ticks.name} fails at each tick: {ticks.error}: see its ticks in Dagster"
        for ticks in failed
        if ticks.at >= began_at
    ]


def load_at_rest(
    missing_since: float | None, load: Look | None, sensor: Look | None, began_at: float | None, now: float
) -> list[str]:
    """That z-scores wait to be loaded and no load gets on.

    `missing_since`: when the first version was committed that is not in every collection, None when there is none;
    `load`: when a load got on last; `sensor`: the last look of the sensor that requests loads; `began_at`: as above.
    """
    if missing_since is None:
        return []
    if load is not None and not ahead(load.at, now) and now - load.at <= LOAD_SECONDS:
        return []
    said = f" (its sensor says: {sensor.said})" if sensor is not None else ""
    if ahead(missing_since, now):
        return [f"z-scores of before the clock was set back wait to be loaded into MongoDB, and no load gets on{said}"]
    waits = now - max(missing_since, 0.0 if began_at is None or ahead(began_at, now) else began_at)
    if waits <= LOAD_SECONDS:
        return []
    return [f"z-scores have been waiting for {waits:.0f} s to be loaded into MongoDB, and no load gets on{said}"]


def full_disks(free: Mapping[str, int | None]) -> list[str]:
    """The places where there is no room left. `free`: bytes by place, 0 also where no further file can be made."""
    return [
        f"the disk of {place} is full ({left / 1e6:.0f} MB are left): make room, the streams then go on by themselves"
        for place, left in free.items()
        if left is not None and left < LEAST_FREE_BYTES
    ]
