"""What the sensors conclude from one look and what they remember of earlier ones: pure, no Dagster, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestration.lakehouse.tables import TableVersion
from orchestration.supervision.restart_policy import History

OBSERVE_SECONDS = 60.0
"""Time between two observations of an asset: the event log keeps them all."""
CHECK_SECONDS = 600.0
"""After so long an unchanged check is reported again."""

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
