"""The marker of what a query has published, and what follows from it: pure.

Results depend on the input alone, not on how it was cut into micro-batches: what is published after reading up to some
offsets is the same whoever reads, and in however many steps. So a marker says up to which offsets of the input the
results are published. A micro-batch that ends there, or before, is published; one that begins there is not; anything
else means that checkpoint and marker are not of one history, and the query must not guess.

A checkpoint that is behind its marker (restored from a copy, rolled back by a power cut) goes on by computing without
publishing up to the very offsets of the marker: its micro-batches must end there. A checkpoint that is ahead of its
marker lacks nothing, but the topic may.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tickhouse.contract.topology import COUNTS
from tickhouse.errors import NonRetryableError
from tickhouse.kafka.offsets import Offsets, named, numbered

_MOST_BYTES = 4_000
"""Of a marker's metadata, in a broker's default settings (`offset.metadata.max.bytes` is 4,096)."""
_ENDS = "ends"
_SHOWN = 3


class MarkerMismatch(NonRetryableError):
    """The marker does not suit the checkpoint: going on would repeat results or leave some out."""


class MicroBatch(NamedTuple):
    """One micro-batch by what it reads."""

    number: int
    first: Offsets
    """Where it begins; empty for the first one of all."""
    ends: Offsets

    def to_json(self) -> str:
        """For the task."""
        return json.dumps([self.number, named(self.first), named(self.ends)])

    @classmethod
    def from_json(cls, text: str) -> MicroBatch:
        """What `to_json` gave."""
        number, first, ends = json.loads(text)
        return cls(number, numbered(first), numbered(ends))


class Marker(NamedTuple):
    """What a marker says."""

    number: int
    """Of the next micro-batch; only an earlier version went by it."""
    counts: dict[str, int]
    """`COUNTS`, cumulative since the checkpoint began."""
    ends: Offsets | str | None
    """Up to where in the input the results are published: the offsets, their digest where they do not fit into a
    marker, None in a marker of an earlier version."""

    def metadata(self) -> str:
        """Everything but the number."""
        ends = self.ends if self.ends is None or isinstance(self.ends, str) else named(self.ends)
        text = json.dumps({**self.counts, _ENDS: ends}, separators=(",", ":"))
        if len(text) > _MOST_BYTES and not isinstance(self.ends, str):
            return self._replace(ends=digest(self.ends or {})).metadata()
        return text


NOTHING_PUBLISHED = Marker(0, dict.fromkeys(COUNTS, 0), {})


def parse(number: int, metadata: str | None) -> Marker:
    """The marker that was committed as an offset with metadata. Raises MarkerMismatch if no stream wrote it."""
    try:
        content = json.loads(metadata or "")
        counts = {name: int(content[name]) for name in COUNTS}
        ends = content.get(_ENDS)
        return Marker(number, counts, numbered(ends) if isinstance(ends, dict) else ends)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MarkerMismatch(
            "its marker was set by somebody else: it does not say which results are published"
        ) from error


def digest(offsets: Offsets) -> str:
    """A short text that differs for other offsets."""
    return hashlib.sha256(json.dumps(named(offsets)).encode()).hexdigest()


def is_published(marker: Marker | None, batch: MicroBatch) -> bool:
    """Whether the results of a micro-batch are published. Raises MarkerMismatch where that cannot be told."""
    if marker is None:
        raise lost()
    if marker.ends is None:
        raise MarkerMismatch("its marker was written by an earlier version of the stream, after this one had begun")
    if _is_at(marker.ends, batch.ends):
        return True
    if _is_at(marker.ends, batch.first):
        return False
    if not isinstance(marker.ends, str):
        if covers(marker.ends, batch.ends):
            return True
        if covers(batch.first, marker.ends):
            raise _behind(marker.ends, batch.first)
        raise MarkerMismatch(
            f"its results are published up to {shown(marker.ends)}, in the middle of the planned micro-batch "
            f"{batch.number} from {shown(batch.first)} to {shown(batch.ends)}: checkpoint and marker are not of one "
            "history"
        )
    raise MarkerMismatch(
        f"its marker is neither at the beginning nor at the end of the planned micro-batch {batch.number}, from "
        f"{shown(batch.first)} to {shown(batch.ends)}: checkpoint and marker are not of one history"
    )


def adopted(found: Marker | None, any_found: bool, done: int, offsets: Offsets, planned: Offsets | None) -> Marker:
    """The marker for a checkpoint that none was noted for: a new one, or one of an earlier version.

    `any_found`: whether any partition of the query has a marker; `done`: the last micro-batch that is done, -1 = none;
    `offsets` after it, and `planned` after the one behind it, if that has been begun. An earlier version wrote numbers
    only, and none at all for a partition that had no results. Raises MarkerMismatch.
    """
    if found is None:
        if done >= 0 and not any_found:
            raise lost()
        return Marker(done + 1, NOTHING_PUBLISHED.counts, offsets)
    if found.ends is not None:
        return found
    if found.number <= done + 1:
        return found._replace(ends=offsets)
    if found.number == done + 2 and planned is not None:
        return found._replace(ends=planned)
    raise MarkerMismatch(
        f"{found.number} of its micro-batches are published, and its checkpoint has done {done + 1}: the checkpoint "
        "was restored from a copy or rolled back by a power cut"
    )


def stops(markers: Iterable[Marker | None], done: int, offsets: Offsets, planned: Offsets | None) -> list[Offsets]:
    """Offsets at which micro-batches must end for a checkpoint to meet its markers again; none when they suit.

    The other arguments are those of `adopted`. Raises MarkerMismatch when the checkpoint cannot go on.
    """
    found: list[Offsets] = []
    for marker in markers:
        # What is begun is repeated as it was planned, and compared then. Without any, nothing can have been published.
        if planned is not None and not is_published(marker, MicroBatch(done + 1, offsets, planned)):
            continue
        if planned is None and not is_published(marker, MicroBatch(done + 1, offsets, offsets)):
            continue
        if marker is not None and not isinstance(marker.ends, str | None) and marker.ends not in (offsets, planned):
            found.append(marker.ends)
    unique = [ends for position, ends in enumerate(found) if ends not in found[:position]]
    return sorted(unique, key=lambda ends: sum(offset for parts in ends.values() for offset in parts.values()))


def furthest(markers: Iterable[Marker | None], planned: Offsets) -> Offsets:
    """The furthest position beyond `planned` that markers name; `planned` if there is none."""
    for marker in markers:
        if marker is not None and isinstance(marker.ends, dict) and covers(marker.ends, planned):
            planned = marker.ends
    return planned


def limited(position: Offsets, ends: Offsets, stops: Sequence[Offsets]) -> Offsets:
    """`ends` of a micro-batch that begins at `position`, no further than the first stop that is still to come."""
    for stop in stops:
        if not covers(position, stop):
            return {
                topic: {
                    number: min(end, stop.get(topic, {}).get(number, position.get(topic, {}).get(number, 0)))
                    for number, end in parts.items()
                }
                for topic, parts in ends.items()
            }
    return ends


def covers(offsets: Offsets, others: Offsets) -> bool:
    """Whether all that comes before `others` comes before `offsets`."""
    return all(
        number in offsets.get(topic, {}) and offsets[topic][number] >= other
        for topic, parts in others.items()
        for number, other in parts.items()
    )


def shown(offsets: Mapping[str, Mapping[int, int]]) -> str:
    """Offsets in words."""
    places = [
        f"{topic}/{number}: {offset}" for topic, parts in named(offsets).items() for number, offset in parts.items()
    ]
    more = [f"{len(places) - _SHOWN} more"] if len(places) > _SHOWN else []
    return f"({', '.join([*places[:_SHOWN], *more])})" if places else "the beginning"


def _is_at(ends: Offsets | str, offsets: Offsets) -> bool:
    return ends == (digest(offsets) if isinstance(ends, str) else offsets)


def check_owner(owner: str | None, query_id: str) -> None:
    """Raise MarkerMismatch if a query other than `query_id` publishes to the topics; None: nobody is known to."""
    if owner not in (None, query_id):
        raise MarkerMismatch(
            f"another checkpoint, that of the query {owner}, has published to its topics since: one that was replaced "
            "or moved away cannot be used again, nor that of another home with the same topics"
        )


def lost() -> MarkerMismatch:
    """Why a query with a marker that is gone cannot go on."""
    return MarkerMismatch(
        "Kafka has lost the marker of what it has published: a broker removes one that is not renewed for as long as "
        "its offsets.retention.minutes, or somebody deleted it"
    )


def _behind(ends: Offsets, first: Offsets) -> MarkerMismatch:
    return MarkerMismatch(
        f"its results are published up to {shown(ends)}, and the checkpoint goes on from {shown(first)}: the marker "
        "was set back, or Kafka has lost what was written last, so results in between may be missing"
    )
