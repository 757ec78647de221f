"""Checksums of a Delta table's files on a local disk: noted with each commit, compared before anything in them counts.

Neither Parquet files as `deltalake` writes them nor the log's entries can be told from damaged ones: a flipped bit is
read as another price, another offset, another day. So beside each file of the table there is a record of its size and
CRC-32 in the folder `_checksums`, under the same path. Names that begin so are left alone by all who know Delta, also
by a removal of unused files.

A record is written once, as files of a table never change. One that is not whole, by its own CRC-32, is as none and
made anew. A file without one passes: it was committed by somebody else, or a kill came in between, and gets its record
with the next commit or maintenance. `_last_checkpoint` has none, as it is replaced: it is a hint that readers can do
without, and where it leads them is compared.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from tickhouse.contract.topology import JOBS
from tickhouse.errors import Damaged
from tickhouse.places import local_path

FOLDER = "_checksums"
_LOG = "_delta_log"
_ENTRY = re.compile(r"([0-9]{20})\.json")
_CHECKPOINT = re.compile(r"([0-9]{20})\.checkpoint(\..*)?\.parquet")
_PIECE = 2**20
_REMEMBER_SECONDS = 60.0
_RESULTS = {table for job in JOBS.values() for table in job.archives}
_DAY = re.compile(r"(?:^|/)date=([0-9]{4}-[0-9]{2}-[0-9]{2})/")


class TableDamaged(Damaged, DeltaError):
    """A file of a table is not what was written; the text says which, and what to do."""


class _Sum(NamedTuple):
    size: int
    crc: int


class _Remembered:
    """The log's entries that this process has compared lately: whoever opens a table each second reads them once."""

    def __init__(self) -> None:
        self._since = 0.0
        self._files: dict[str, tuple[int, int]] = {}

    def __contains__(self, path: str) -> bool:
        if time.monotonic() - self._since > _REMEMBER_SECONDS:
            self._files, self._since = {}, time.monotonic()
        return path in self._files and self._files[path] == _identity(path)

    def add(self, path: str, identity: tuple[int, int] | None) -> None:
        if identity is not None:
            self._files[path] = identity


_remembered = _Remembered()


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """A table, if its log is what was written. Raises TableDamaged, and what `DeltaTable` raises."""
    require_log(uri, version)
    return DeltaTable(uri, version=version)


def require_log(uri: str, version: int | None = None) -> None:
    """Compare what is read of the log to open a version (default: the newest). Raises TableDamaged."""
    table = local_path(uri)
    if table is not None:
        for name in _segment(table, version):
            _require_entry(table, name)


def require_files(opened: DeltaTable, paths: Collection[str] | None = None) -> None:
    """Compare data files of a table, all or those of these paths as its log has them. Raises TableDamaged."""
    table = local_path(opened.table_uri)
    if table is not None:
        for path in data_files(opened) if paths is None else paths:
            _require(table, unquote(path))


def require_changes(uri: str, first: int, last: int) -> None:
    """Compare what tells the changes of the versions `first` to `last`: their entries, and the files these name.

    What is not there any more is left to who reads it. Raises TableDamaged.
    """
    table = local_path(uri)
    if table is None:
        return
    for version in range(first, last + 1):
        name = f"{_LOG}/{version:020}.json"
        _require_entry(table, name)
        for path in _named(table, name, ("add", "remove", "cdc"), changed=True):
            _require(table, path)


def data_files(opened: DeltaTable) -> list[str]:
    """The paths of the data files of a version, as its log has them."""
    # Not by `pa.table`, which imports pandas to see whether it is given some of that.
    actions = pa.RecordBatchReader.from_stream(opened.get_add_actions()).read_all()
    paths: list[str] = actions["path"].to_pylist()
    return paths


def damaged(uri: str) -> list[TableDamaged]:
    """All that is wrong with the files of a table: its log, and the data of its newest version."""
    table = local_path(uri)
    if table is None:
        return []
    found = []
    for name in _log_files(table):
        found += _wrong(table, name)
    if not found:
        for path in sorted(data_files(DeltaTable(uri))):
            found += _wrong(table, unquote(path))
    return found


def note(uri: str) -> None:
    """Note the checksums of what the newest commits have written, as far as they lack them.

    To be called after each commit. Costs a look at each entry of the log since its last checkpoint.
    """
    table = local_path(uri)
    if table is None:
        return
    for name in _segment(table, None):
        if not (table / FOLDER / name).exists():
            if name.endswith(".json"):
                for path in _named(table, name, ("add", "cdc")):
                    _note(table, path)
            # Last: an entry that has its record is not looked at again.
            _note(table, name)


def note_all(uri: str) -> int:
    """Note the checksums of all files that lack them, and forget those of files that are gone; how many are new."""
    table = local_path(uri)
    if table is None:
        return 0
    noted = sum(_note(table, name) for name in [*_log_files(table), *map(unquote, data_files(open_table(uri)))])
    for folder, _, files in os.walk(table / FOLDER):
        for file in files:
            record = Path(folder, file)
            if not (table / record.relative_to(table / FOLDER)).exists():
                record.unlink(missing_ok=True)
    return noted


def forget(table: Path, name: str) -> None:
    """Forget the checksum of a file that is about to be written anew."""
    (table / FOLDER / name).unlink(missing_ok=True)


def _segment(table: Path, version: int | None) -> Iterator[str]:
    """The files of the log that are read to open a version: the last checkpoint before it, and all entries since."""
    begin, checkpoints = _checkpoint(table, version)
    yield from checkpoints
    at = begin + 1
    while version is None or at <= version:
        name = f"{_LOG}/{at:020}.json"
        if not (table / name).exists():
            return
        yield name
        # One that the hint does not tell of yet.
        later = _checkpoint_name(at)
        if (table / later).exists():
            yield later
        at += 1


def _checkpoint(table: Path, version: int | None) -> tuple[int, list[str]]:
    """The version of the last checkpoint up to a version, and its files; where there is none, that before the first."""
    hint = _hinted(table)
    if hint is not None and (version is None or hint <= version):
        # A hint to where entries were cleaned away is none.
        name = _checkpoint_name(hint)
        if (table / name).exists() and (table / f"{_LOG}/{hint:020}.json").exists():
            return hint, [name]
    found: dict[int, list[str]] = {}
    listed = _listed(table)
    for name in listed:
        match = _CHECKPOINT.fullmatch(name)
        if match and (version is None or int(match[1]) <= version):
            found.setdefault(int(match[1]), []).append(f"{_LOG}/{name}")
    if found:
        return max(found), found[max(found)]
    entries = [int(match[1]) for match in map(_ENTRY.fullmatch, listed) if match]
    return min(entries, default=0) - 1, []


def _checkpoint_name(version: int) -> str:
    return f"{_LOG}/{version:020}.checkpoint.parquet"


def _hinted(table: Path) -> int | None:
    try:
        hint = json.loads((table / _LOG / "_last_checkpoint").read_bytes())
        return int(hint["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _listed(table: Path) -> list[str]:
    try:
        return sorted(path.name for path in (table / _LOG).iterdir())
    except FileNotFoundError:
        return []


def _log_files(table: Path) -> list[str]:
    """All entries and checkpoints of the log."""
    return [f"{_LOG}/{name}" for name in _listed(table) if _ENTRY.fullmatch(name) or _CHECKPOINT.fullmatch(name)]


def _named(table: Path, name: str, kinds: Iterable[str], *, changed: bool = False) -> Iterator[str]:
    """The files that an entry of the log names; with `changed`, those that its change of rows is read from."""
    try:
        lines = (table / name).read_bytes().splitlines()
        for action in map(json.loads, lines):
            for kind in kinds:
                if kind in action and (not changed or kind == "cdc" or action[kind].get("dataChange", True)):
                    yield unquote(action[kind]["path"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # gone, or not to be read: whoever reads it says so


def _require_entry(table: Path, name: str) -> None:
    path = f"{table}/{name}"
    if path in _remembered:
        return
    identity = _identity(path)
    _require(table, name)
    _remembered.add(path, identity)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 — asked a hundred times for each opening of a table
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _require(table: Path, name: str) -> None:
    for damage in _wrong(table, name):
        raise damage


def _wrong(table: Path, name: str) -> list[TableDamaged]:
    noted = _noted(table / FOLDER / name)
    if noted is None:
        return []
    try:
        found = _sum(table / name)
    except FileNotFoundError:
        return []
    return [] if found == noted else [TableDamaged(_sentence(table, name))]


def _sentence(table: Path, name: str) -> str:
    record, day = table / FOLDER / name, _DAY.search(name)
    then = f", and `tickhouse backfill {day[1]}` puts results right" if day and table.name in _RESULTS else ""
    return (
        f"{table / name} is damaged, its content is not what was written: put that file back from a backup, any that "
        f"has it, as it never changes; to go on with it as it is, remove {record}{then}"
    )


def _note(table: Path, name: str) -> bool:
    """Note the checksum of a file unless it has one; whether it had none."""
    record = table / FOLDER / name
    if _noted(record) is not None:
        return False
    try:
        found = _sum(table / name)
    except FileNotFoundError:
        return False
    record.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=record.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(_record(found))
        # Not forced to disk: a record that a power cut has torn or taken is made anew.
        Path(temporary).replace(record)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def _record(found: _Sum) -> bytes:
    text = f"{found.size} {found.crc:08x}"
    return f"{text} {zlib.crc32(text.encode()):08x}\n".encode()


def _noted(record: Path) -> _Sum | None:
    try:
        content = record.read_bytes()
        size, crc, _ = content.split()
        noted = _Sum(int(size), int(crc, 16))
    except (OSError, ValueError):
        return None
    return noted if _record(noted) == content else None


def _sum(path: Path) -> _Sum:
    size = crc = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            crc = zlib.crc32(piece, crc)
    return _Sum(size, crc)
