"""What is worth an alert, when it is raised and when it is cleared: pure, no I/O, no Dagster.

A condition is raised once it has lasted as long as its patience, and cleared once it has been absent for as long as its
calm, so that what comes and goes is told once. Times are in seconds, moments in epoch seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from orchestration.supervision.stream_health import StreamView

LONGEST_BREAK = 120.0
"""After a longer time without a look (the stack was stopped) nothing counts as having lasted."""
STREAM_PATIENCE = 30.0
"""A stream that ends is started again within a few seconds: only one that stays down is worth an alert."""
CHECK_PATIENCE = 60.0
"""While a stack starts, checks fail for a moment."""
SENSOR_PATIENCE = 15.0
SCORE_CALM = 300.0
"""How long a z-score must have been within its limit: around the limit it comes and goes."""
_SOURCE_ENDED = ("ended", "stopped")


class Condition(NamedTuple):
    """Something that is amiss now. `key` names it; texts may change from one look to the next."""

    key: str
    title: str
    detail: str = ""
    patience: float = 0.0
    calm: float = 0.0


class Change(NamedTuple):
    """An alert that is raised or cleared now."""

    key: str
    state: Literal["raised", "cleared"]
    title: str
    detail: str = ""


class Known(BaseModel):
    """A condition that was seen and is not yet forgotten."""

    title: str
    since: float
    seen: float
    calm: float
    raised: bool = False


class Ticks(BaseModel):
    """How far the source had got, and when that last changed."""

    mark: str
    since: float


class Memory(BaseModel):
    """What is remembered from one look to the next."""

    looked_at: float = 0.0
    known: dict[str, Known] = {}
    ticks: Ticks | None = None


def decide(conditions: Iterable[Condition], unknown: Collection[str], memory: Memory, now: float) -> list[Change]:
    """What is raised and cleared by a look, noting it in `memory`.

    `unknown`: keys, or beginnings of keys, of what could not be looked at: it stays as it was.
    """
    if now - memory.looked_at > LONGEST_BREAK:
        memory.known = {key: known for key, known in memory.known.items() if known.raised}
    memory.looked_at = now
    changes = []
    present = set()
    for condition in conditions:
        present.add(condition.key)
        known = memory.known.get(condition.key)
        if known is None:
            known = Known(title=condition.title, since=now, seen=now, calm=condition.calm)
            memory.known[condition.key] = known
        known.seen, known.calm = now, condition.calm
        if not known.raised and now - known.since >= condition.patience:
            known.raised, known.title = True, condition.title
            changes.append(Change(condition.key, "raised", condition.title, condition.detail))
    for key, known in list(memory.known.items()):
        if key in present or any(key.startswith(beginning) for beginning in unknown):
            continue
        if known.raised and now - known.seen < known.calm:
            continue
        del memory.known[key]
        if known.raised:
            changes.append(Change(key, "cleared", known.title))
    return changes


def stream_condition(name: str, view: StreamView, wanted: bool, given_up: str | None) -> Condition | None:
    """A stream that is wanted and down."""
    if not wanted or view.state in ("running", "starting"):
        return None
    key, title = f"stream:{name}", f"The stream {name} is down"
    if given_up is not None:
        return Condition(key, title, f"given up: {given_up}")
    return Condition(key, title, f"{view.state}: {view.error}" if view.error else view.state, STREAM_PATIENCE)


def source_condition(
    source: str | None, producer: Mapping[str, Any], limit: float, memory: Memory, now: float
) -> Condition | None:
    """A source that should send and from which no new tick has come for `limit`.

    `source`: what is meant to run, None when nobody has said; `producer`: the producer's heartbeat, empty when there is
    none. Notes in `memory` how far it had got.
    """
    mark = f"{producer.get('acknowledged')} {producer.get('last_timestamp')}"
    broken_off = now - memory.looked_at > LONGEST_BREAK
    if memory.ticks is None or memory.ticks.mark != mark or broken_off:
        memory.ticks = Ticks(mark=mark, since=now)
    named = source or producer.get("source")
    if named is None or producer.get("state") in _SOURCE_ENDED:
        return None
    silent = now - memory.ticks.since
    if silent < limit:
        return None
    why = producer.get("error") or producer.get("note") or producer.get("state") or "the producer has never run"
    return Condition("source", f"No new tick from {named}", f"for {silent:.0f} s: {why}")


def check_condition(asset: str, check: str, description: str) -> Condition:
    """A check whose latest evaluation has failed."""
    return Condition(f"check:{asset}:{check}", f"The check {check} of {asset} fails", description, CHECK_PATIENCE)


def sensor_condition(name: str, error: str) -> Condition:
    """A sensor whose latest tick has failed."""
    return Condition(f"sensor:{name}", f"The sensor {name} fails", error, SENSOR_PATIENCE)


def score_conditions(extremes: Mapping[tuple[str, str], float], limit: float) -> list[Condition]:
    """z-scores beyond the limit. `extremes`: by symbol and window, the one that is furthest from zero in the newest."""
    return [
        Condition(
            f"zscore:{symbol}:{window}",
            f"{symbol} is far from its {window} mean",
            f"z-score {score:+.2f}, the limit is {limit:g}",
            calm=SCORE_CALM,
        )
        for (symbol, window), score in extremes.items()
        if abs(score) >= limit
    ]
