"""When to load the serving store: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestration.lakehouse.tables import TableVersion
from orchestration.serving.mongo import COLLECTIONS, Loaded
from orchestration.supervision.restart_policy import History, Policy, decide

LOAD_POLICY = Policy(first_pause=5, longest_pause=300, limit=12)
"""After failed loads: about half an hour of attempts with growing pauses."""


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
