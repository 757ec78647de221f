"""Health checks of the tables: which there are, and the judgement as pure functions.

The supervisor sensor reports these as they change; each can also be run by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from orchestration.monitoring.table_rules import FOREIGN_SECONDS, FRESH_SECONDS, LAG_LIMIT, RULES, Share
from orchestration.supervision.stream_health import StreamView, epoch_seconds
from tickhouse.contract.topology import JOBS

Severity = Literal["ERROR", "WARN"]
ERROR: Severity = "ERROR"
WARN: Severity = "WARN"
_HEARTBEAT_SECONDS = 30.0
"""A producer that has been silent for longer sends nothing."""


class CheckKey(NamedTuple):
    """A check of an asset."""

    asset: str
    name: str


@dataclass(frozen=True)
class Outcome:
    """What a check found, in a form that can be compared with what it found before."""

    passed: bool
    description: str
    severity: Severity
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamFacts:
    """One stream as found by a look. Times in epoch seconds; None where nothing is known."""

    view: StreamView
    wanted: bool
    lag: int | None = None
    """Messages that wait for its computation."""
    archive_lag: int | None = None
    """Messages that it has published and not yet saved in its tables."""
    given_up: str | None = None
    committed: Mapping[str, float] = field(default_factory=dict)
    """By table: when its newest version came."""


STREAM_OF = {table: spec.name for spec in JOBS.values() for table in spec.tables}
"""Table to the stream that writes it."""

CHECKS: dict[CheckKey, str] = {
    **{
        CheckKey(table, "stream_alive"): f"The {stream} stream runs, if it is wanted."
        for table, stream in STREAM_OF.items()
    },
    **{
        CheckKey(table, "lag"): f"Fewer than {LAG_LIMIT:,} messages wait for the {stream} stream."
        for table, stream in STREAM_OF.items()
    },
    **{
        CheckKey(table, "fresh"): f"New rows come within {FRESH_SECONDS:.0f} s as long as a live source sends, or "
        "messages wait."
        for table, rules in RULES.items()
        if rules.fresh
    },
    **{
        CheckKey(table, rules.share.check): f"Less than {rules.share.limit:.0%} {rules.share.text}."
        for table, rules in RULES.items()
        if rules.share
    },
    **{
        CheckKey(table, "no_foreign_messages"): f"In the last {FOREIGN_SECONDS / 3_600:.0f} h nothing but results was "
        f"found on the topic {topic}: what is none is left out."
        for spec in JOBS.values()
        for table, topic in spec.archives.items()
    },
}
"""Every check and what it means."""


def live_since(producer: Mapping[str, Any], started_at: float | None, now: float) -> float | None:
    """Since when ticks have been coming that are of now, None if none do: in a recording they need not be.

    `producer`: its heartbeat, empty when there is none; `started_at`: of its process, None when unknown.
    """
    source = producer.get("source")
    if not source or source.startswith("replay:") or producer.get("state") != "running":
        return None
    if now - epoch_seconds(producer["written_at"]) > _HEARTBEAT_SECONDS:
        return None
    return started_at or 0.0


def judge(stream: str, facts: StreamFacts, live: float | None, now: float) -> dict[CheckKey, Outcome]:
    """The outcome of every check of the tables of one stream. `live`: what `live_since` gave."""
    alive, behind = _alive(facts), _lag(facts)
    outcomes: dict[CheckKey, Outcome] = {}
    for table in JOBS[stream].tables:
        rules = RULES[table]
        outcomes[CheckKey(table, "stream_alive")] = alive
        outcomes[CheckKey(table, "lag")] = behind
        if rules.fresh:
            outcomes[CheckKey(table, "fresh")] = _fresh(facts, facts.committed.get(table), live, now)
        if rules.share:
            outcomes[CheckKey(table, rules.share.check)] = _share(facts.view, rules.share)
        if table in JOBS[stream].archives:
            outcomes[CheckKey(table, "no_foreign_messages")] = _foreign(facts.view, table, now)
    return outcomes


def _alive(facts: StreamFacts) -> Outcome:
    view = facts.view
    metadata = {"state": view.state, "pid": view.pid or "none"}
    if not facts.wanted:
        return Outcome(True, "stopped, as wanted", ERROR, metadata)
    if facts.given_up is not None:
        return Outcome(False, f"given up: {facts.given_up}", ERROR, metadata)
    if view.state in ("running", "starting"):
        return Outcome(True, view.state, ERROR, metadata)
    return Outcome(False, f"{view.state}: {view.error}" if view.error else view.state, ERROR, metadata)


def _lag(facts: StreamFacts) -> Outcome:
    lag = facts.lag
    metadata: dict[str, Any] = {} if lag is None else {"messages": lag, "limit": LAG_LIMIT}
    if not facts.wanted:
        return Outcome(True, "stopped, as wanted", WARN, metadata)
    if lag is None:
        return Outcome(False, "not known: Kafka does not answer or the stream never ran", WARN)
    return Outcome(lag < LAG_LIMIT, "within bounds" if lag < LAG_LIMIT else "behind", WARN, metadata)


def _fresh(facts: StreamFacts, committed: float | None, live: float | None, now: float) -> Outcome:
    """By when rows came, not by what time they tell: a recording of years ago is as fresh as any."""
    if not facts.wanted:
        return Outcome(True, "stopped, as wanted", WARN)
    if live is None and not facts.lag and not facts.archive_lag:
        return Outcome(True, "nothing is to come", WARN)
    # Neither a source nor a stream that has just begun can be blamed for what was before.
    began = now - facts.view.running_seconds if facts.view.running_seconds is not None else 0.0
    age = now - max(committed or 0.0, live or 0.0, began)
    fresh = age < FRESH_SECONDS
    return Outcome(fresh, "within bounds" if fresh else "no new rows for too long", WARN, {"limit": FRESH_SECONDS})


def _foreign(view: StreamView, table: str, now: float) -> Outcome:
    found = view.heartbeat.get("foreign", {}).get(table)
    if found is None:
        return Outcome(True, "none", WARN, {"messages": 0})
    passed = now - epoch_seconds(found["last_at"]) >= FOREIGN_SECONDS
    said = f"{found['messages']:,} messages that are no results were left out, the last at {found['last_at']}"
    remedy = "" if passed else ": find out who else writes to the topic"
    return Outcome(passed, said + remedy, WARN, {"messages": found["messages"]})


def _share(view: StreamView, share: Share) -> Outcome:
    part, whole = view.heartbeat.get(share.counter, 0), view.heartbeat.get("input_rows", 0)
    found = part / whole if whole else 0.0
    return Outcome(
        found < share.limit,
        "within bounds" if found < share.limit else "too many",
        WARN,
        {share.counter: part, "messages": whole, "share": found, "limit": share.limit},
    )
