"""`python -m orchestration.stack.daemon run …`: Dagster's daemon, which goes on when the machine's clock is set back.

Dagster measures by the wall clock how long ago a sensor, a schedule or one of its own loops was at work. Set back, that
was in the future, and nothing happens until the clock has passed it once more: no stream is started again, nothing is
loaded. So this process begins anew, and what its records say of the future is forgotten.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
import threading
import time
from typing import NamedTuple

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, ScheduleInstigatorData
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage
from dagster._time import datetime_from_timestamp

SET_BACK_SECONDS = 2.0
"""Less holds nothing up for longer than this, and two clocks are never read at quite the same moment."""
_LOOK_SECONDS = 1.0
_SENSOR_TIMES = ("last_tick_timestamp", "last_tick_start_timestamp", "last_sensor_start_timestamp")
_SCHEDULE_TIMES = ("start_timestamp", "last_iteration_timestamp")

_log = logging.getLogger(__name__)


class Forgotten(NamedTuple):
    """How many records were of the future."""

    states: int
    ticks: int


class ClockWatch:
    """Whether the wall clock was set back since the last look; small corrections, and being set forward, are not."""

    def __init__(self, wall: float, monotonic: float) -> None:
        """The first look at both clocks, in seconds."""
        self._ahead = wall - monotonic

    def set_back(self, wall: float, monotonic: float) -> float:
        """By how many seconds it was set back, 0.0 when it was not."""
        before, self._ahead = self._ahead, wall - monotonic
        by = before - self._ahead
        return by if by > SET_BACK_SECONDS else 0.0


def present(state: InstigatorState, now: float) -> InstigatorState:
    """The state of a sensor or a schedule without moments that are still to come."""
    data = state.instigator_data
    if data is None:
        return state
    # A sensor that has never ticked ticks at once; a schedule goes on from now, as each of its times comes but once.
    schedule = isinstance(data, ScheduleInstigatorData)
    names, value = (_SCHEDULE_TIMES, now) if schedule else (_SENSOR_TIMES, None)
    future = [name for name in names if (getattr(data, name) or 0.0) > now]
    return state.with_data(data._replace(**dict.fromkeys(future, value))) if future else state


def forget_future(instance: dg.DagsterInstance, now: float) -> Forgotten:
    """Forget what sensors and schedules did at moments after `now`, in epoch seconds. No daemon may be running.

    The runs that they requested stay.
    """
    states = 0
    for state in instance.all_instigator_state():
        if (changed := present(state, now)) is not state:
            instance.update_instigator_state(changed)
            states += 1
    storage = instance.schedule_storage
    if not isinstance(storage, SqlScheduleStorage):
        return Forgotten(states, 0)
    # Dagster purges ticks only before a moment, and takes the latest one for the newest.
    later = JobTickTable.delete().where(JobTickTable.c.timestamp > datetime_from_timestamp(now).replace(tzinfo=None))
    with storage.connect() as connection:
        return Forgotten(states, connection.execute(later).rowcount)


def _begin_anew_when_set_back() -> None:
    watch = ClockWatch(time.time(), time.monotonic())
    while True:
        time.sleep(_LOOK_SECONDS)
        by = watch.set_back(time.time(), time.monotonic())
        if by:
            _log.warning("the clock was set back by %.0f s: Dagster's daemon begins anew", by)
            # The same process to whoever watches it; to Dagster it is as after a kill, which its records survive.
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the command that this process was started with


def main() -> None:
    """Run until SIGTERM."""
    # Before the records are mended: set back in the meantime, the clock is mended after.
    threading.Thread(target=_begin_anew_when_set_back, name="clock", daemon=True).start()
    with dg.DagsterInstance.get() as instance:
        forgotten = forget_future(instance, time.time())
    if any(forgotten):
        _log.warning(
            "the clock was set back: forgot %d sensors' and schedules' times and %d ticks that were still to come",
            *forgotten,
        )
    sys.argv[0] = "dagster-daemon"
    runpy.run_module("dagster._daemon", run_name="__main__")


if __name__ == "__main__":
    main()
