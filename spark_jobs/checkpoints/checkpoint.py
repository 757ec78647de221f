"""What a checkpoint belongs to, whether it is whole, and how far it has got.

A checkpoint holds state whose meaning depends on the job's version and parameters. These are written down when it is
made and compared when it is used again, so that an old one is never read with new meaning. With them goes the query's
id, from which the marker of what is published takes its name: Spark would silently make a new one where its own copy
is missing, and all would be published again.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from spark_jobs.checkpoints.files import CheckpointFiles
from tickhouse.errors import NonRetryableError
from tickhouse.kafka.offsets import Offsets, named, numbered
from tickhouse.places import local_path

VERSION = 3
"""Of what is kept in checkpoints; raise it whenever a change gives old state another meaning."""
_IDENTITY_FILE = "tickhouse.json"
_METADATA_FILE = "metadata"
_STATE_METADATA = "state/0/_metadata/v2"
_EXISTING_FILE = "existing.json"
_NOTED = ("query_id", "topic_ids", "place", "marked", "begins")
"""What the identity file says beside the identity."""


class CheckpointMismatch(NonRetryableError):
    """A checkpoint was made by another version of the job or with other parameters; the message says what to do."""


class CheckpointDamaged(NonRetryableError):
    """A file of a checkpoint is missing or cannot be read; the message names it and says what to do."""


class Progress(NamedTuple):
    """How far a checkpoint has got."""

    batch: int
    """The last micro-batch that is done; -1 when only the first one has been begun."""
    offsets: Offsets
    """The next offsets after it."""
    planned: Offsets | None
    """The next offsets after the micro-batch behind it, when that one has been begun; it is then repeated."""


NOT_BEGUN = Progress(-1, {}, None)
"""Of a checkpoint without any micro-batch."""


class Checkpoint:
    """One query's checkpoint. `stream`: the job that it belongs to, for what is said to people."""

    def __init__(self, files: CheckpointFiles, stream: str) -> None:
        self._files = files
        self._stream = stream
        self._ends: dict[int, Offsets] = {}
        """Of the micro-batch that was asked for last."""

    @property
    def query_id(self) -> str:
        """The query's id, once it is claimed."""
        return str((self._noted() or {})["query_id"])

    @property
    def marked(self) -> bool:
        """Whether there are markers of what the query has published (`markers`): one that is missing was then lost."""
        return bool((self._noted() or {}).get("marked"))

    def note_marked(self) -> None:
        """Note that there are markers from now on."""
        self._note({**(self._noted() or {}), "marked": True})

    @property
    def begins(self) -> Offsets:
        """Where the first micro-batch begins, as far as that is noted."""
        return numbered((self._noted() or {}).get("begins", {}))

    def note_begins(self, offsets: Offsets) -> None:
        """Note where the first micro-batch begins: when it is repeated, the broker may have removed some of it."""
        self._note({**(self._noted() or {}), "begins": named(offsets)})

    def existing(self) -> bytes | None:
        """What `keep_existing` was given; None before. Raises CheckpointDamaged."""
        content = self._files.read(_EXISTING_FILE)
        if content == b"":
            raise self._damaged(_EXISTING_FILE, "cannot be read")
        return content

    def keep_existing(self, text: str) -> None:
        """Keep which results were there before the checkpoint (`existing_results`)."""
        self._files.write(_EXISTING_FILE, text)

    @property
    def state_partitions(self) -> int:
        """Partitions of the state, 0 for a query without."""
        return int((self._noted() or {}).get("state_partitions", 0))

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Make the checkpoint, or compare the one that is there. Raises CheckpointMismatch, CheckpointDamaged."""
        noted = self._noted()
        metadata = self._files.read(_METADATA_FILE)
        used = bool(self._numbers("offsets") or self._numbers("commits"))
        if noted is None:
            if used or metadata is not None:
                raise self._damaged(_IDENTITY_FILE, "is missing, while Spark's files are there")
            noted = {**identity, "query_id": str(uuid.uuid4()), "topic_ids": {}}
        else:
            self._compare({key: value for key, value in noted.items() if key not in _NOTED}, identity)
        found_id = None if metadata is None else self._query_id(metadata)
        query_id = noted.setdefault("query_id", found_id)
        if found_id is None and (used or query_id is None):
            content = json.dumps({"id": query_id})
            repair = f"write {content} into it and start again; nothing is lost or repeated" if query_id else None
            raise self._damaged(_METADATA_FILE, "is missing", repair)
        if found_id is not None and found_id != query_id:
            raise self._damaged(_METADATA_FILE, f"has the query id {found_id}, and {_IDENTITY_FILE} has {query_id}")
        place = noted.get("place", self._files.place)
        if place != self._files.place and self._files.is_copied(place, _IDENTITY_FILE):
            raise CheckpointMismatch(
                f"the checkpoint {self._files.place} is a copy of {place}, which is still there: two streams with one "
                "query id would take each other's results for their own. Use the one or move the other away"
            )
        self._note({**noted, "place": self._files.place})
        self._relocate_state()
        if found_id is None:
            self._files.write(_METADATA_FILE, json.dumps({"id": query_id}))

    def topic_ids(self) -> dict[str, str]:
        """The ids of the topics when the query read them, as far as they are known."""
        return dict((self._noted() or {}).get("topic_ids", {}))

    def note_topic_ids(self, topic_ids: Mapping[str, str]) -> None:
        """Keep the ids of topics, which from now on are those that the checkpoint's offsets are of."""
        noted = self._noted() or {}
        known = noted.get("topic_ids", {})
        if known | topic_ids != known:
            self._note({**noted, "topic_ids": known | topic_ids})

    def inspect(self) -> Progress | None:
        """How far it has got, None when no micro-batch has been begun.

        Looks at all that Spark will read first. What is inside the files of the state only Spark can tell. Raises
        CheckpointDamaged, with the exact repair where there is one without risk.
        """
        plans, commits = self._numbers("offsets"), self._numbers("commits")
        if not plans:
            if commits:
                raise self._damaged("offsets", "is empty, while micro-batches are recorded as done")
            return None
        last = plans[-1]
        if commits and commits[-1] > last:
            raise self._damaged(f"offsets/{commits[-1]}", "is missing")
        # A micro-batch is planned only when the one before is done, whether or not that is recorded.
        done = last if commits and commits[-1] == last else last - 1
        if commits:
            self._check_commit(commits[-1], last)
        planned = self._plan(last, done)
        offsets = planned if done == last else self._plan(done, done) if done >= 0 else {}
        for partition in range(self.state_partitions):
            self._check_state(partition, done + 1, repeatable=done == last)
        return Progress(done, offsets, None if done == last else planned)

    def committed(self) -> Offsets:
        """The next offsets after the last micro-batch that is recorded as done; empty before the first.

        May be asked while the query runs: a plan is written before its commit, and kept longer. Raises
        CheckpointDamaged.
        """
        commits = self._numbers("commits")
        return self._plan(commits[-1], commits[-1]) if commits else {}

    def range_of(self, batch: int) -> tuple[Offsets, Offsets]:
        """Where a planned micro-batch begins and ends; what is new in it has no beginning.

        Raises CheckpointDamaged.
        """
        first = self._ends.get(batch - 1) or (self._plan(batch - 1, batch - 1) if batch else {})
        self._ends = {batch: self._plan(batch, batch - 1)}
        return first, self._ends[batch]

    def go_on_from(self, progress: Progress, offsets: Offsets, planned: Offsets | None, mark: str) -> None:
        """Let the next micro-batch begin at other offsets; the state and all numbers stay as they are.

        `progress` is what `inspect` gave; `planned` replaces its `planned`. The files that are changed are kept in
        the folder `replaced`, their names ending with `mark`.
        """
        changes = [(progress.batch + 1, planned)] if planned is not None else []
        # The end of the last micro-batch is where the next one begins. It comes last: until then all is as it was.
        changes += [(progress.batch, offsets)] if progress.batch >= 0 else []
        for batch, position in changes:
            name = f"offsets/{batch}"
            text = (self._files.read(name) or b"").decode()
            self._files.write(f"replaced/offsets-{batch}-{mark}", text)
            version, batch_metadata = text.splitlines()[:2]
            self._files.write(name, "\n".join([version, batch_metadata, _offsets_text(position)]))

    def damage_of(self, failure: str) -> CheckpointDamaged | None:
        """What a failure of Spark says about damage in this checkpoint; None when it says nothing of the kind."""
        if not re.search(r"CANNOT_LOAD_STATE_STORE|STATE_STORE_CHECKSUM|ChecksumException|[Cc]hecksum error", failure):
            return None
        name = re.search(rf"{re.escape(self._files.place)}/([\w./-]+)", failure)
        return self._damaged(name[1].rstrip(".") if name else "state", "cannot be read by Spark")

    def _compare(self, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        if found == identity:
            return
        raise CheckpointMismatch(
            f"the checkpoint {self._files.place} was made with {dict(found)}, this job runs with {dict(identity)}: "
            f"start it with the settings it was made with, or {rebuild_advice(self._stream)}"
        )

    def _relocate_state(self) -> None:
        """Let Spark find the schema of the state after the checkpoint was moved: it has noted the whole path."""
        place = self._files.place
        here = json.dumps(place if local_path(place) is None else f"file:{place}", ensure_ascii=False)
        for number in self._numbers(_STATE_METADATA):
            name = f"{_STATE_METADATA}/{number}"
            noted = (self._files.read(name) or b"").decode(errors="replace")
            found = re.sub(r'"(?:[^"\\]|\\.)*(/state/[0-9]+/_stateSchema/)', lambda match: here[:-1] + match[1], noted)
            if found != noted:
                self._files.write(name, found)

    def _noted(self) -> dict[str, Any] | None:
        content = self._files.read(_IDENTITY_FILE)
        if content is None:
            return None
        noted = _json(content)
        if not isinstance(noted, dict) or "query" not in noted:
            raise self._damaged(_IDENTITY_FILE, "cannot be read")
        return noted

    def _note(self, noted: Mapping[str, Any]) -> None:
        if noted != self._noted():
            self._files.write(_IDENTITY_FILE, json.dumps(noted))

    def _query_id(self, metadata: bytes) -> str:
        content = _json(metadata)
        query_id = content.get("id") if isinstance(content, dict) else None
        if not isinstance(query_id, str):
            known = (self._noted() or {}).get("query_id")
            text = json.dumps({"id": known})
            repair = f"write {text} into it and start again; nothing is lost or repeated" if known else None
            raise self._damaged(_METADATA_FILE, "cannot be read", repair)
        return query_id

    def _plan(self, batch: int, done: int) -> Offsets:
        name = f"offsets/{batch}"
        content = self._files.read(name)
        if content is None:
            raise self._damaged(name, "is missing")
        lines = content.decode(errors="replace").splitlines()
        parsed = [_json(line.encode()) for line in lines[1:]]
        # The offset log: a version line, a line of metadata, then the one source's offsets.
        if len(parsed) == 2 and lines[0] == "v1" and all(isinstance(part, dict) for part in parsed):
            try:
                return numbered(parsed[1])
            except (AttributeError, ValueError, TypeError):
                pass
        repair = None
        if batch > done:
            # What is there of its results is known by what was read, not by the number.
            repair = f"remove {name} and start again: the micro-batch {batch} is then planned anew"
        raise self._damaged(name, "cannot be read", repair)

    def _check_commit(self, batch: int, last_plan: int) -> None:
        name = f"commits/{batch}"
        lines = (self._files.read(name) or b"").decode(errors="replace").splitlines()
        if len(lines) >= 2 and lines[0] == "v1" and isinstance(_json(lines[1].encode()), dict):
            return
        raise self._damaged(name, "cannot be read", self._repeat(batch) if batch == last_plan else None)

    def _check_state(self, partition: int, version: int, *, repeatable: bool) -> None:
        """Whether a version of the state can be put together: from a snapshot, and every change since."""
        folder = f"state/0/{partition}"
        sizes = self._files.sizes(folder)

        def missing(goal: int) -> int | None:
            snapshots = [int(name[:-4]) for name in sizes if re.fullmatch(r"[0-9]+\.zip", name)]
            first = max((number for number in snapshots if number <= goal), default=0) + 1
            return next((number for number in range(first, goal + 1) if not sizes.get(f"{number}.changelog")), None)

        lacking = missing(version)
        if lacking is None:
            return
        name = f"{folder}/{lacking}.changelog"
        earlier = repeatable and lacking == version and version > 1 and missing(version - 1) is None
        what = "is empty" if f"{lacking}.changelog" in sizes else "is missing"
        raise self._damaged(name, what, self._repeat(version - 1) if earlier else None)

    def _repeat(self, batch: int) -> str:
        return (
            f"remove commits/{batch} and commits/.{batch}.crc and start again: the micro-batch {batch} is then "
            "repeated, and nothing is lost or published twice"
        )

    def _damaged(self, name: str, what: str, repair: str | None = None) -> CheckpointDamaged:
        remedy = "" if repair is None else f"{repair}; or "
        return CheckpointDamaged(
            f"the checkpoint is damaged, {self._files.place}/{name} {what}: {remedy}{rebuild_advice(self._stream)}"
        )

    def _numbers(self, folder: str) -> list[int]:
        return sorted(int(name) for name in self._files.sizes(folder) if name.isdigit())


def rebuild_advice(stream: str) -> str:
    """The way out that keeps the results right."""
    return (
        f"run `tickhouse rebuild {stream}`: it replaces the checkpoint by a new one, which goes on exactly where the "
        "results that are there end"
    )


def _offsets_text(offsets: Offsets) -> str:
    return json.dumps(named(offsets), separators=(",", ":"))


def _json(content: bytes) -> Any:
    """What JSON text says; None when it is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None
