"""Health checks of the tables and collections.

Here: which checks there are, and the judgement as pure functions. The supervisor sensor reports them as they change;
each can also be run by hand. Not here: looking at anything (`orchestration.assets`, `orchestration.sensors`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import dagster as dg

from orchestration.supervisor import StreamView
from spark_jobs.jobs import JOBS

LAG_LIMIT = 10_000
"""Messages that may wait for a stream; a catch-up has more, and says so while it lasts."""
REJECTED_SHARE_LIMIT = 0.05
"""Share of rejected messages above which something is wrong with the source."""


class CheckKey(NamedTuple):
    """A check of an asset."""

    asset: str
    name: str


@dataclass(frozen=True)
class Outcome:
    """What a check found, in a form that can be compared with what it found before."""

    passed: bool
    description: str
    severity: dg.AssetCheckSeverity
    metadata: dict[str, Any]


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
    CheckKey("rejects", "share"): f"Less than {REJECTED_SHARE_LIMIT:.0%} of the messages are rejected.",
}
"""Every check and what it means."""


def check_specs() -> list[dg.AssetCheckSpec]:
    """The checks as Dagster knows them."""
    return [dg.AssetCheckSpec(key.name, asset=dg.AssetKey(key.asset), description=text) for key, text in CHECKS.items()]


def judge(
    view: StreamView, *, stream: str, wanted: bool, lag: int | None, given_up: str | None
) -> dict[CheckKey, Outcome]:
    """The outcome of every check of the tables of one stream. `lag` in messages, None when unknown."""
    alive = _alive(view, wanted, given_up)
    behind = _lag(lag)
    outcomes: dict[CheckKey, Outcome] = {}
    for table in JOBS[stream].tables:
        outcomes[CheckKey(table, "stream_alive")] = alive
        outcomes[CheckKey(table, "lag")] = behind
        if table == "rejects":
            outcomes[CheckKey(table, "share")] = _rejects(view)
    return outcomes


def _alive(view: StreamView, wanted: bool, given_up: str | None) -> Outcome:
    metadata = {"state": view.state, "pid": view.pid or "none"}
    if not wanted:
        return Outcome(True, "stopped, as wanted", dg.AssetCheckSeverity.ERROR, metadata)
    if given_up is not None:
        return Outcome(False, f"given up: {given_up}", dg.AssetCheckSeverity.ERROR, metadata)
    if view.state in ("running", "starting"):
        return Outcome(True, view.state, dg.AssetCheckSeverity.ERROR, metadata)
    return Outcome(
        False, f"{view.state}: {view.error}" if view.error else view.state, dg.AssetCheckSeverity.ERROR, metadata
    )


def _lag(lag: int | None) -> Outcome:
    if lag is None:
        return Outcome(
            False, "not known: Kafka does not answer or the stream never ran", dg.AssetCheckSeverity.WARN, {}
        )
    return Outcome(
        lag < LAG_LIMIT,
        "within bounds" if lag < LAG_LIMIT else "behind",
        dg.AssetCheckSeverity.WARN,
        {"messages": lag, "limit": LAG_LIMIT},
    )


def _rejects(view: StreamView) -> Outcome:
    rejected, received = view.heartbeat.get("rejects", 0), view.heartbeat.get("input_rows", 0)
    share = rejected / received if received else 0.0
    return Outcome(
        share < REJECTED_SHARE_LIMIT,
        "within bounds" if share < REJECTED_SHARE_LIMIT else "too many",
        dg.AssetCheckSeverity.WARN,
        {"rejected": rejected, "messages": received, "share": share},
    )


def evaluation(key: CheckKey, outcome: Outcome) -> dg.AssetCheckEvaluation:
    """An outcome as a runless event."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(key.asset),
        check_name=key.name,
        passed=outcome.passed,
        metadata=outcome.metadata,
        severity=outcome.severity,
        description=outcome.description,
    )


def result(key: CheckKey, outcome: Outcome) -> dg.AssetCheckResult:
    """An outcome as the result of a check that was run."""
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(key.asset),
        check_name=key.name,
        passed=outcome.passed,
        metadata=outcome.metadata,
        severity=outcome.severity,
        description=outcome.description,
    )
