"""When to poll, and when a recorded line is due: clock arithmetic, with the clocks passed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class Poll(NamedTuple):
    """The next poll: `due` on the monotonic clock in nanoseconds, `missed` steps that went by without one."""

    due: int
    missed: int


def next_poll(previous_due: int | None, step_ns: int, wall_ns: int, monotonic_ns: int) -> Poll:
    """The next moment to poll at, always on a boundary of the step by the wall clock.

    Both clocks must have been read in this order, wall first: a pause between the two then makes the poll late,
    never early, so the time of receipt cannot floor to the step before the boundary.

    The wait is measured on the monotonic clock, and the boundary is found anew each time: neither the sleep's
    overshoot, nor the time that a request takes, nor the drift between the clocks adds up. A boundary that is
    already past is missed, not caught up on: two receipts always have a boundary between them.
    """
    to_boundary = step_ns - wall_ns % step_ns
    due = monotonic_ns + to_boundary
    if previous_due is None:
        return Poll(due, 0)
    # A wall clock that jumps moves the boundaries; half a step is the least time between two polls all the same.
    if due < previous_due + step_ns // 2:
        due += step_ns
    return Poll(due, max(0, round((due - previous_due) / step_ns) - 1))


class Pace:
    """Maps recorded times to moments on the monotonic clock, in seconds, at a constant speed-up."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._anchor: tuple[float, float] | None = None

    def due(self, recorded: float, now: float) -> float:
        """When the line recorded at `recorded` is due, at the earliest `now`; the first line sets the anchor."""
        if self._anchor is None:
            self._anchor = (recorded, now)
        start, began = self._anchor
        return max(now, began + (recorded - start) / self._speed)


class Outlook:
    """When the lines of a recording will be sent, as far as that can be told beforehand."""

    def __init__(self, now_ms: int, speed: float | None) -> None:
        """`speed` is in recorded seconds per second, None for as fast as it goes: then all are sent now."""
        self._now = now_ms / 1e3
        self._pace = None if speed is None else Pace(speed)
        self._due = self._now

    def sent_ms(self, recorded_ms: list[int | None]) -> list[int]:
        """When some further lines will be sent that were recorded at these times, in milliseconds since the epoch."""
        pace = self._pace
        if pace is None:
            return [round(self._now * 1e3)] * len(recorded_ms)
        sent = []
        for _, recorded in plausible_times((None, None if time is None else time / 1e3) for time in recorded_ms):
            if recorded is not None:
                self._due = pace.due(recorded, self._due)
            sent.append(round(self._due * 1e3))
        return sent


PLAUSIBLE_GAP_SECONDS = 60.0
_HELD_LINES = 1_000  # how many lines without a time are looked past before the jump is taken for a stray


def plausible_times(items: Iterable[tuple[Item, float | None]]) -> Iterator[tuple[Item, float | None]]:
    """Blank out the times that a pace should not follow: a lone jump ahead, as a malformed line may have one.

    A jump of more than a minute, and the first time of all, count when the next time in the file is within a
    minute of them: then it was a real silence. Items and their order are unchanged.
    Without this, one line of the year 2099 would hold up a replay for ever.
    """
    last: float | None = None
    held: list[tuple[Item, float | None]] = []
    for item, time in items:
        if held:
            jump = held[0][1]
            assert jump is not None
            if time is None and len(held) < _HELD_LINES:
                held.append((item, time))
                continue
            real = time is not None and abs(time - jump) <= PLAUSIBLE_GAP_SECONDS
            yield held[0][0], jump if real else None
            yield from held[1:]
            held = []
            last = jump if real else last
        if time is not None and (last is None or time - last > PLAUSIBLE_GAP_SECONDS):
            held = [(item, time)]
            continue
        if time is not None and last is not None:
            last = max(last, time)
        yield item, time
    yield from ((item, None) for item, _ in held)
