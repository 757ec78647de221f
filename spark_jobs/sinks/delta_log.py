"""The newest commits of a Delta table on a local disk: forcing them there, and what a power cut has left of them.

A commit is an entry of the log, written last, and the files that it adds. `deltalake` leaves it to the kernel when
either is on disk, and after a power cut the entry may be there without its content, or without the files.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from tickhouse.files import force, force_way_to
from tickhouse.places import local_path
from tickhouse.table_checksums import forget

_ENTRY = re.compile(r"([0-9]{20})\.json")
_CHECKPOINT = re.compile(r"([0-9]{20})\.checkpoint\.parquet")
_LAST_CHECKPOINT = "_last_checkpoint"
_log = logging.getLogger(__name__)


class _Added(NamedTuple):
    """A file that a commit adds."""

    path: Path
    size: int


def force_commits(uri: str, after: int) -> None:
    """Force the commits behind a version of a table, -1 for all, to disk; of no effect where it is on no local disk."""
    table = local_path(uri)
    if table is None:
        return
    log = table / "_delta_log"
    names = [path for path in log.iterdir() if _version(path.name) > after or path.name == _LAST_CHECKPOINT]
    files = [added.path for path in names if _ENTRY.fullmatch(path.name) for added in _added(table, path)]
    force([*files, *names], {log, table, *(path.parent for path in files)})
    if after < 0:
        force_way_to(table)


def set_torn_commits_aside(uri: str) -> int:
    """Undo the newest commits of a table as far as a power cut has torn them; returns how many these are.

    A commit that counts as done has been forced to disk, or the checkpoint of its stream is as far back, or it is
    found to lie behind that checkpoint. To be called by the only writer of the table.
    """
    table = local_path(uri)
    log = None if table is None else table / "_delta_log"
    if table is None or log is None or not log.is_dir():
        return 0
    _remove_torn_checkpoints(log)
    torn = 0
    for entry in sorted((path for path in log.iterdir() if _ENTRY.fullmatch(path.name)), reverse=True):
        if _is_whole(table, entry):
            break
        _log.warning("a power cut has torn the commit %s, which is undone", entry)
        # Both are written anew under the same name.
        forget(table, f"{log.name}/{entry.name}")
        forget(table, f"{log.name}/{entry.stem}.checkpoint.parquet")
        entry.rename(entry.with_name(f"torn-{entry.name}"))
        torn += 1
    if torn:
        force((), (log,))
    return torn


def _is_whole(table: Path, entry: Path) -> bool:
    try:
        added = list(_added(table, entry))
        return bool(entry.stat().st_size) and all(each.path.stat().st_size == each.size for each in added)
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return False


def _added(table: Path, entry: Path) -> Iterator[_Added]:
    """The files that an entry of the log adds. Raises ValueError, KeyError, TypeError when it is none."""
    for line in entry.read_bytes().splitlines():
        action: dict[str, Any] = json.loads(line)
        if "add" in action:
            yield _Added(table / unquote(action["add"]["path"]), action["add"]["size"])


def _remove_torn_checkpoints(log: Path) -> None:
    """Of the log itself: what is in a checkpoint is in the entries, too, until these are as old as the table keeps."""
    for path in sorted(log.iterdir(), reverse=True):
        if _CHECKPOINT.fullmatch(path.name):
            try:
                pq.read_table(path)
                return
            except (pa.ArrowException, OSError, ValueError):
                _log.warning("a power cut has torn the checkpoint %s of a log, which is made anew in time", path)
                (log / _LAST_CHECKPOINT).unlink(missing_ok=True)
                forget(log.parent, f"{log.name}/{path.name}")
                path.unlink()


def _version(name: str) -> int:
    found = _ENTRY.fullmatch(name) or _CHECKPOINT.fullmatch(name)
    return int(found[1]) if found else -1
