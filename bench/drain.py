"""A backlog worked off: how many ticks a second a contestant takes in, and what that costs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import usage
from bench.rates import Seen, rounded, sustained
from bench.systems import Contestant
from bench.testbed import FAILURES, Ground, last_words, stop_all
from orchestration.local import processes
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC

_LOOK_SECONDS = 0.5
_FIRST_RESULT_SECONDS = 75.0
_LOG_BYTES = 20_000
_TO_THE_END_SECONDS = 180.0


def drain(
    ground: Ground,
    contestant: Contestant,
    owed: int,
    owed_passages: int,
    box_seconds: float,
    warm_up_seconds: float,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Let a contestant work off what is on the price topic, for `box_seconds` from its first results at most.

    One that is to be seen `to_the_end` has three minutes.

    `owed` ticks have final statistics, `owed_passages` final higher and lower prices at least: with these it is done.
    Returns its figures, with a `failure` where it gave no results.
    """
    ground.renew()
    home = ground.new_home(contestant.name)
    began = time.monotonic()
    try:
        running = contestant.start(ground, home)
        watch = _Watch(ground, contestant, running, owed, owed_passages, began)
        watch.until(_TO_THE_END_SECONDS if contestant.to_the_end else box_seconds, tell)
        ended = not all(processes.alive(process) for process in running)
    except FAILURES as error:
        return {"failure": f"{type(error).__name__}: {error}"[:600]}
    finally:
        stop_all(home)
    rate = sustained(watch.seen, warm_up_seconds)
    if rate is None:
        why = (
            last_words(running) if ended else f"fewer than two arrivals of results in {time.monotonic() - began:.0f} s"
        )
        return {"failure": why, "ticks": watch.seen[-1].ticks, "peak_megabytes": rounded(watch.memory.megabytes)}
    return {
        "rate": rounded(rate.per_second, 4),
        "ticks": rate.ticks,
        "seconds": rounded(rate.seconds),
        "first_result_seconds": rounded(watch.first_result),
        "complete": watch.complete,
        "cpu_seconds_per_million": rounded(rate.cpu_seconds_per_million),
        "peak_megabytes": rounded(watch.memory.megabytes),
        **({"failure": f"ended early: {last_words(running)}"} if ended and not watch.complete else {}),
    }


class _Watch:
    """What is seen of a contestant while it works."""

    def __init__(
        self,
        ground: Ground,
        contestant: Contestant,
        running: list[processes.Process],
        owed: int,
        owed_passages: int,
        began: float,
    ) -> None:
        self._ground = ground
        self._contestant = contestant
        self._running = running
        self._owed = owed
        self._owed_passages = owed_passages
        self._began = began
        self.seen = [Seen(0.0, 0)]
        self.first_result: float | None = None
        self.memory = usage.LargestMemory(running)
        self._cpu = usage.CpuMeter(running)
        self.complete = False

    def until(self, box_seconds: float, tell: Callable[[str], None]) -> None:
        """Look on until all is done, the time is over or a process has ended."""
        while True:
            now = time.monotonic() - self._began
            ticks = self._ticks()
            self.seen.append(Seen(now, ticks, self._cpu.seconds()))
            self.memory.look()
            if ticks and self.first_result is None:
                self.first_result = now
            tell(f"{ticks:,} of {self._owed:,} ticks after {now:.0f} s")
            limit = _FIRST_RESULT_SECONDS if self.first_result is None else self.first_result + box_seconds
            if self.complete or now > limit or not all(processes.alive(process) for process in self._running):
                return
            time.sleep(_LOOK_SECONDS)

    def _ticks(self) -> int:
        if not self._contestant.per_tick:
            ticks = ticks_in_log(Path(self._running[0].log))
            self.complete = ticks >= self._owed
            return ticks
        readable = self._ground.readable(self._contestant.outputs)
        self.complete = all(
            count >= (self._owed_passages if topic in (HIGHER_TOPIC, LOWER_TOPIC) else self._owed)
            for topic, count in readable.items()
        )
        # A tick counts when all its results can be read.
        return min(self._owed, *readable.values())


def ticks_in_log(log: Path) -> int:
    """The last number of ticks that a peer has printed as `{"ticks": 12345}`; 0 when it has printed none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            lines: Sequence[bytes] = file.read().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        if line.startswith(b'{"ticks":'):
            return int(json.loads(line)["ticks"])
    return 0
