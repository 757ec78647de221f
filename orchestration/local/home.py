"""A home: all that the product makes in it, the marker it gets when it is made, and its removal.

A removal deletes what is on the list and nothing else. It follows no link and enters no other file system; what it
leaves it names. The marker goes last, with the folder, so that a removal that was interrupted can be repeated.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import psutil

from orchestration.local import home_marker
from orchestration.local.home_lock import LOCK
from orchestration.settings import ENDPOINTS, PROJECT_ROOT
from tickhouse.contract.topology import BACKFILLS_TABLE, GAPS_TABLE, JOBS, TABLES

_WRITTEN = b"# Written at each start"
"""How the configurations begin that every version writes."""


@dataclass(frozen=True)
class Part:
    """A file or folder that the product makes in a home. `made`: patterns of what it makes in a folder, each whole.

    The name may be a pattern, too.
    """

    name: str
    content: str
    made: tuple[str, ...] = ()


PARTS = (
    Part("kafka", "topics", ("data", "data.unfinished", "*.properties", "*.so", "*.so.lck", "hsperfdata_*")),
    Part("mongo", "collections", ("WiredTiger*", "*.wt", "*.bson", "*.lock", "journal", "diagnostic.data", "_tmp")),
    Part("lakehouse", "Delta tables", (*TABLES, GAPS_TABLE, BACKFILLS_TABLE)),
    Part("checkpoints", "progress of the streams", tuple(query for job in JOBS.values() for query in job.queries)),
    Part("dagster", "runs and events", ("*.yaml", "history", "schedules", "storage", "logs", ".*")),
    Part("run", "records of processes", ("*.json", ".*.json.*", "*.lock", "recording", "input")),
    Part("tmp", "temporary files", ("*",)),
    Part("locks", "locks of tables", ("*.lock",)),
    Part("logs", "logs", ("*.log", "*.log.1")),
    Part("replay", "the last recording that was sent", ("*",)),
    Part("alerts.jsonl", "alerts"),
    Part(ENDPOINTS, "addresses"),
    Part("hs_err_pid*.log", "what Java wrote when it crashed"),
)
_KNOWN_BY = (home_marker.MARKER, LOCK)
"""What makes a folder a home. It goes last, and only with the folder."""
_NAMES = tuple(part.name for part in PARTS)
_NEW = {"tmp"}
"""What no version without markers made."""


@dataclass
class Tally:
    """What a part takes, or took, on disk."""

    files: int = 0
    size_bytes: int = 0


@dataclass
class Contents:
    """What a removal deletes, by the part, and what stays, with the reason."""

    parts: dict[Part, Tally] = field(default_factory=dict)
    stays: list[tuple[Path, str]] = field(default_factory=list)


def obstacle(home: Path) -> str | None:
    """Why that folder cannot be a home; None when it can, or is one."""
    if home.is_symlink() and not home.exists():
        return f"the home {home} is a link to {home.readlink()}, which does not exist: make it, or choose another home"
    if home.exists() and not home.is_dir():
        return f"the home {home} is no folder: choose another with --home"
    return home_marker.obstacle(home, "home", _NAMES, _of_earlier(home))


def mark(home: Path) -> None:
    """Mark a home, unless it is marked; its lock must be held. Raises NotOurs, OSError."""
    home_marker.mark(home, "home", _NAMES, _of_earlier(home))


def is_home(home: Path) -> bool:
    """Whether that folder is a home, marked or of an earlier version. Raises NotOurs when its marker is not valid."""
    return home_marker.read_marker(home, "home") is not None or _is_earlier(home)


def _of_earlier(home: Path) -> Collection[str]:
    """What versions without markers made in that folder, if one did."""
    return {*_NAMES} - _NEW if _is_earlier(home) else ()


def _is_earlier(home: Path) -> bool:
    """Whether it has what versions without markers left in a home."""
    return any(_begins(home / name, _WRITTEN) for name in ("kafka/server.properties", "dagster/dagster.yaml"))


def _begins(path: Path, text: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(text)) == text
    except OSError:
        return False


def require_removable(home: Path) -> None:
    """Raises NotOurs where nothing may be removed: anywhere but in a marked home, and never above what others need."""
    folder = home.resolve()
    for kept, name in _never_removed():
        if kept.is_relative_to(folder):
            raise home_marker.NotOurs(f"{home} is {name}, or contains it: it is no home, and nothing is deleted")
    if home_marker.read_marker(home, "home") is None:
        raise home_marker.NotOurs(
            f"{home} is a home of a version that did not mark its homes: start it once with `tickhouse up`, which "
            "marks it, or delete it by hand"
            if _is_earlier(home)
            else f"{home} is not a home of tickhouse: there is nothing to delete"
        )


def _never_removed() -> Iterator[tuple[Path, str]]:
    yield Path("/"), "the root of the file system"
    yield PROJECT_ROOT.resolve(), "the folder of this program"
    with suppress(RuntimeError):  # a user without one
        yield Path.home().resolve(), "your home folder"


def look(home: Path) -> Contents:
    """What a removal would delete and leave. Raises OSError."""
    return _Walk(home, remove=False).go()


def remove(home: Path) -> Contents:
    """Delete what the product made in a home whose lock is held. Raises OSError; a repetition goes on from there."""
    return _Walk(home, remove=True).go()


def _is_of(name: str, part: Part) -> bool:
    """Whether an entry of a home is that part, or a file that was to replace it when its writer was killed."""
    return fnmatchcase(name, part.name) or (not part.made and name.startswith(f".{part.name}."))


class _Walk:
    """One way through a home, deleting or only counting: what is counted is what is deleted."""

    def __init__(self, home: Path, *, remove: bool) -> None:
        self._named = home
        self._home = home.resolve()
        self._remove = remove
        self._mounts = {Path(partition.mountpoint) for partition in psutil.disk_partitions(all=True)}
        self._device = self._home.stat().st_dev
        here = Path.cwd()
        self._occupied = {here, *here.parents}
        self._contents = Contents()

    def go(self) -> Contents:
        folder = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in sorted(os.listdir(folder)):  # noqa: PTH208 (of a descriptor: nobody can put a link in its place)
                part = next((part for part in PARTS if _is_of(name, part)), None)
                if part is not None:
                    tally = self._contents.parts.setdefault(part, Tally())
                    self._entry(folder, name, self._home / name, tally, part.made)
                elif not any(name == known or name.startswith(f".{known}.") for known in _KNOWN_BY):
                    self._stays(self._home / name, "not made by Tickhouse")
            if self._named.is_symlink():
                self._stays(self._home, "a link leads to it")
            elif self._home in self._mounts:
                self._stays(self._home, "a file system is mounted on it")
            elif self._home in self._occupied:
                self._stays(self._home, "the current folder")
            if self._remove and not self._contents.stays:
                for name in sorted(os.listdir(folder), key=_KNOWN_BY.index):  # noqa: PTH208
                    os.unlink(name, dir_fd=folder)
                self._home.rmdir()
        finally:
            os.close(folder)
        return self._contents

    def _entry(self, parent: int, name: str, path: Path, tally: Tally, made: tuple[str, ...] = ()) -> bool:
        """Delete a file, or a folder as far as it has what matches `made`; whether it is gone."""
        try:
            return self._do_entry(parent, name, path, tally, made)
        except OSError as error:
            if not Path(str(error.filename)).is_absolute():  # it names what it was given, which has no folder
                error.filename = str(path)
            raise

    def _do_entry(self, parent: int, name: str, path: Path, tally: Tally, made: tuple[str, ...]) -> bool:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return self._stays(path, "a link")
        # A file in a container may be of another device than the folder that it is in, without being mounted.
        is_folder = stat.S_ISDIR(found.st_mode)
        if path in self._mounts or (is_folder and found.st_dev != self._device):
            return self._stays(path, "another file system")
        if not is_folder:
            tally.files += 1
            tally.size_bytes += found.st_blocks * 512
            if self._remove:
                os.unlink(name, dir_fd=parent)
            return True
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            gone = True
            for child in sorted(os.listdir(folder)):  # noqa: PTH208
                if made and not any(fnmatchcase(child, pattern) for pattern in made):
                    gone = self._stays(path / child, "not made by Tickhouse")
                else:
                    gone = self._entry(folder, child, path / child, tally) and gone
        finally:
            os.close(folder)
        if gone and path in self._occupied:
            gone = self._stays(path, "the current folder")
        if gone and self._remove:
            os.rmdir(name, dir_fd=parent)
        return gone

    def _stays(self, path: Path, reason: str) -> bool:
        self._contents.stays.append((path, reason))
        return False
