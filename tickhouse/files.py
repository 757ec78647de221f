"""Forcing files to disk, so that a power cut does not take them.

Neither Spark's checkpoints nor `deltalake` do that by themselves: what they write is on disk when the kernel finds the
time, half a minute later perhaps, and in any order.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_AT_ONCE = 8
"""The file system then writes its journal once for several."""
_pool = ThreadPoolExecutor(_AT_ONCE, "force")


def force(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Force the data of files and then the names in folders to disk. What is gone meanwhile is left out."""
    for some in (files, folders):
        list(_pool.map(_force, some))


def _force(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def force_way_to(folder: Path) -> None:
    """Force the names to disk that lead to a folder, as far up as we may have made them."""
    force((), (parent for parent in folder.absolute().parents if os.access(parent, os.R_OK | os.W_OK)))


class ForcedFolder:
    """A folder of files that are written once, and forced to disk as they come: a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._forced: dict[str, set[str]] = {}
        """By folder: the names in it that are on disk."""

    def force(self) -> None:
        """Force all that is there and new since the last time to disk."""
        there: dict[str, set[str]] = {}
        files: list[Path] = []
        folders: list[Path] = []
        for place, inside, names in os.walk(self._folder):
            # What is still being written has a temporary name.
            there[place] = {*inside, *(name for name in names if not name.endswith(".tmp"))}
            new = there[place] - self._forced.get(place, set())
            files += [Path(place, name) for name in new if name not in inside]
            if new:
                folders.append(Path(place))
        if not self._forced:
            force_way_to(self._folder)
        force(files, folders)
        self._forced = there


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` in one step, on disk before it is visible: a reader never sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
