"""Coming back after a kill: how long until the first new result, for streams that have run for different times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from bench.limits import LATENESS_MS
from bench.rates import rounded
from bench.systems import Contestant
from bench.testbed import Ground, stop_all
from bench.ticks import STEP_MS, Walk, final_statistics, random_walk
from orchestration.local import processes
from tickhouse.contract.topology import TOPICS

HOURS = (0.5, 4.0)
"""Of ticks taken in before the kill: within the longest window, and so much that most has been let go of."""
_SYMBOLS = 8
_FURTHER_STEPS = 300
"""Half a minute: more than the lateness, so some of it is final."""
_LOOK_SECONDS = 0.05
_LONGEST_SECONDS = 240.0
Tell = Callable[[str], None]


def recovery(ground: Ground, contestant: Contestant, seed: int, tell: Tell) -> list[dict[str, Any]]:
    """For each age: seconds from the start after a SIGKILL of all processes to the first new result on the topic."""
    return [{"hours": hours, "seconds": rounded(_seconds(ground, contestant, seed, hours, tell))} for hours in HOURS]


def _seconds(ground: Ground, contestant: Contestant, seed: int, hours: float, tell: Tell) -> float:
    ground.renew(TOPICS)
    before = int(hours * 3_600_000) // STEP_MS
    walk = random_walk(seed, _SYMBOLS, (before + _FURTHER_STEPS) * _SYMBOLS)
    first, further = _part(walk, 0, before), _part(walk, before, before + _FURTHER_STEPS)
    ground.send_walk(first)
    home = ground.new_home(contestant.name)
    try:
        running = contestant.start(ground, home)
        _until(ground, contestant, final_statistics(first, LATENESS_MS), running, tell)
        # The commit of the last micro-batch is written after its results can be read.
        time.sleep(2.0)
        for process in running:
            _kill(process)
        known = min(ground.readable(contestant.outputs).values())
        ground.send_walk(further)
        began = time.monotonic()
        _until(ground, contestant, known + 1, contestant.start(ground, home), tell)
        return time.monotonic() - began
    finally:
        stop_all(home)


def _part(walk: Walk, begin: int, end: int) -> Walk:
    return Walk(walk.names, walk.timestamps[begin:end], walk.cents[begin:end])


def _until(ground: Ground, contestant: Contestant, results: int, running: list[processes.Process], tell: Tell) -> None:
    """Wait until so many results can be read. Raises RuntimeError when a process ends or it takes too long."""
    began = time.monotonic()
    while (readable := min(ground.readable(contestant.outputs).values())) < results:
        tell(f"{readable:,} of {results:,} results")
        if not all(processes.alive(process) for process in running):
            raise RuntimeError(f"{contestant.title} has ended")
        if time.monotonic() - began > _LONGEST_SECONDS:
            raise RuntimeError(f"{contestant.title} has not published {results:,} results")
        time.sleep(_LOOK_SECONDS)


def _kill(process: processes.Process) -> None:
    whole = psutil.Process(process.pid)
    for one in (whole, *whole.children(recursive=True)):
        one.kill()
    psutil.wait_procs([whole])
