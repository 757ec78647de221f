"""What the sensors conclude from one look and what they remember of earlier ones: pure, no Dagster, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestration.lakehouse.tables import TableVersion
from orchestration.serving.load import COLLECTIONS, Loaded
from orchestration.supervision.restart_policy import Decision, History, Policy, StreamView, decide

OBSERVE_SECONDS = 60.0
"""Time between two observations of an asset: the event log keeps them all."""
CHECK_SECONDS = 600.0
"""After so long an unchanged check is reported again."""
LOAD_POLICY = Policy(first_pause=5, longest_pause=300, limit=12)
"""After failed loads: about half an hour of attempts with growing pauses."""

_FORM = 1


@dataclass(frozen=True)
class Seen:
    """The newest version of a table, and when it was first seen (epoch seconds)."""

    table_id: str
    version: int
    at: float


@dataclass
class Memory:
    """What the supervisor sensor remembers from one tick to the next."""

    histories: dict[str, History] = field(default_factory=dict)
    tables: dict[str, Seen] = field(default_factory=dict)
    checks: dict[str, tuple[bool, str, float]] = field(default_factory=dict)
    """By asset and name: whether it passed, its description, and when that was reported."""
    observed_at: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    """Counters at the last observation, for rates."""

    def to_cursor(self) -> str:
        """A form for a sensor's cursor."""
        content = {
            "form": _FORM,
            "histories": {name: history.to_json() for name, history in self.histories.items()},
            "tables": {name: [seen.table_id, seen.version, seen.at] for name, seen in self.tables.items()},
            "checks": self.checks,
            "observed_at": self.observed_at,
            "counts": self.counts,
        }
        return json.dumps(content, separators=(",", ":"))

    @staticmethod
    def from_cursor(cursor: str | None) -> Memory:
        """What `to_cursor` gave. Raises ValueError when it is of another form (of another release)."""
        if not cursor:
            return Memory()
        try:
            content = json.loads(cursor)
            if content["form"] != _FORM:
                raise ValueError(f"the cursor has form {content['form']}")
            return Memory(
                {name: History.from_json(history) for name, history in content["histories"].items()},
                {name: Seen(*seen) for name, seen in content["tables"].items()},
                {name: (bool(seen[0]), str(seen[1]), float(seen[2])) for name, seen in content["checks"].items()},
                float(content["observed_at"]),
                {name: int(count) for name, count in content["counts"].items()},
            )
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"the cursor cannot be read: {error!r}") from error


@dataclass(frozen=True)
class StreamSight:
    """One stream as found by a look. `lag`: messages that wait for it, None when unknown."""

    view: StreamView
    wanted: bool
    pending: bool
    """Whether a run that will change it is under way."""
    lag: int | None = None
    archive_lag: int | None = None


def decide_stream(sight: StreamSight, history: History, now: float, kafka_away: str | None) -> Decision:
    """What to do about one stream. `kafka_away` says why the broker cannot be reached, None when it can."""
    if sight.pending:
        return Decision("nothing", "a run about it is under way", history)
    return decide(
        wanted=sight.wanted,
        running_seconds=sight.view.running_seconds,
        history=history,
        now=now,
        life=sight.view.life,
        last_error=sight.view.error.splitlines()[0] if sight.view.error else None,
        blocked_by=kafka_away,
    )


def note_versions(found: Mapping[str, TableVersion], memory: Memory, now: float) -> None:
    """Note in `memory` the versions that were not seen before; what is not found is no table any more."""
    memory.tables = {
        table: seen
        if (seen := memory.tables.get(table)) and (seen.table_id, seen.version) == (version.table_id, version.version)
        else Seen(version.table_id, version.version, now)
        for table, version in found.items()
    }


def check_is_news(key: str, passed: bool, description: str, memory: Memory, now: float) -> bool:
    """Whether the outcome of a check is to be reported: when it has changed, and otherwise now and then."""
    seen = memory.checks.get(key)
    return seen is None or seen[:2] != (passed, description) or now - seen[2] >= CHECK_SECONDS


@dataclass(frozen=True)
class LoadDecision:
    """Whether to request a load, and why (not)."""

    request: bool
    reason: str


def decide_load(
    newest: TableVersion | None,
    loaded: Mapping[str, Loaded],
    *,
    in_flight: bool,
    failures: Sequence[float],
    now: float,
) -> LoadDecision:
    """Whether to load MongoDB now.

    `newest` is the table's version, None when there is no table; `loaded` the record of each collection; `in_flight`
    whether a load is under way; `failures` when the loads since the last good one failed, oldest first. A failed load
    is repeated even when no new rows come, after growing pauses, and at a limit given up until a load by hand is good.
    """
    if newest is None:
        return LoadDecision(False, "there is no table zscores yet")
    behind = [
        collection
        for collection in COLLECTIONS.values()
        if (record := loaded.get(collection)) is None
        or (record.table_id, record.delta_version) != (newest.table_id, newest.version)
    ]
    if not behind:
        return LoadDecision(False, f"version {newest.version} is loaded")
    if in_flight:
        return LoadDecision(False, "a load is under way")
    decision = decide(wanted=True, running_seconds=None, history=History(tuple(failures)), now=now, policy=LOAD_POLICY)
    if decision.action == "give up":
        return LoadDecision(
            False,
            f"given up after {len(failures)} failed loads: their logs say why; then launch load_mongodb by hand",
        )
    return LoadDecision(
        decision.action == "start", f"version {newest.version}, {len(behind)} collections behind: {decision.reason}"
    )
