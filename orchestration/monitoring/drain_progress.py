"""When all that is in the topics has been processed, saved and loaded: pure, from one look after another.

The judgement differs from that of `tickhouse status`, which tells whether a finite source has gone through: here the
source may go on, and what counts is what was there at the first look, with all that follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestration.lakehouse.tables import TableVersion
from orchestration.serving.mongo import COLLECTIONS, TABLE, Loaded
from orchestration.supervision.lag import Offsets, lag, offsets_of
from tickhouse.contract.topology import JOBS, TOPICS

_WRITER = {topic: spec for spec in JOBS.values() for topic in spec.outputs}


class Drain:
    """Keeps, from look to look, up to where each topic and the table must have gone through."""

    def __init__(self) -> None:
        self._marks: Offsets = {}
        self._version: TableVersion | None = None

    def look(
        self,
        heartbeats: Mapping[str, Mapping[str, Any]],
        ends: Offsets,
        zscores: TableVersion | None,
        loaded: Mapping[str, Loaded],
    ) -> list[str]:
        """What is still to go through, in words; empty when all has.

        `heartbeats` by job, `ends` by topic, `loaded` by collection. The heartbeats must have been read before `ends`,
        these before the table's version, and that before `loaded`: whatever a stream has published or saved by what its
        heartbeat tells is then among them.
        """
        for topic in TOPICS:
            writer = _WRITER.get(topic)
            # A topic's mark can be set once its writer is past the marks of what it reads.
            if topic not in self._marks and topic in ends:
                behind = None if writer is None else self._behind(writer.name, writer.name, writer.inputs, heartbeats)
                if writer is None or behind == 0:
                    self._marks[topic] = ends[topic]
        reasons = []
        for name, spec in JOBS.items():
            for query, topics in spec.queries.items():
                behind = self._behind(name, query, topics, heartbeats)
                if behind is None:
                    reasons.append(f"query {query} waits for what comes before it")
                elif behind:
                    reasons.append(f"query {query} has {behind:,} messages to go")
        if reasons:
            return reasons
        self._version = self._version or zscores
        if self._version is None:
            return []  # no z-score was ever saved: there is nothing to load
        return [
            f"collection {collection} is not at version {self._version.version} of {TABLE}"
            for collection in COLLECTIONS.values()
            if not _has(loaded.get(collection), self._version)
        ]

    def _behind(
        self, job: str, query: str, topics: tuple[str, ...], heartbeats: Mapping[str, Mapping[str, Any]]
    ) -> int | None:
        return lag(self._marks, offsets_of(heartbeats.get(job, {}), query), topics)


def _has(record: Loaded | None, wanted: TableVersion) -> bool:
    return record is not None and record.table_id == wanted.table_id and record.delta_version >= wanted.version
