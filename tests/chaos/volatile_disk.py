"""A disk that forgets on a power cut what was not synced: the model, without FUSE.

The files are kept by number in a folder, as they are now; the directories in memory; and beside both what it takes to
undo everything that a power cut would lose. `power_filesystem` puts it under a mount point.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

Mode = Literal["posix", "ext4", "any"]
"""What survives a power cut beside what was synced.

`posix`: nothing. The data of a file survive when the file was synced, its name when the directory was.
`ext4`: as ext4 behaves by default. Names survive in order: with every sync of anything, and after 5 s. Data survive
when synced, when the file was renamed over another, and after 30 s. So a new name may stand for an empty file.
`any`: all that POSIX allows. Each page and size that was not synced survives or not, and of each directory some of
the latest changes, drawn from a seed.
"""

ROOT = 1
_PAGE = 4_096
_COMMIT_SECONDS = 5.0
_WRITEBACK_SECONDS = 30.0


@dataclass
class Node:
    """A file, a directory or a link. `names`: how many names it has now."""

    number: int
    mode: int
    names: int = 1
    entries: dict[bytes, int] | None = None
    target: bytes = b""
    unsynced: Unsynced | None = None
    opened: int = 0


@dataclass
class Unsynced:
    """What a file was when it was last synced, as far as it has changed: its size, and pages within it."""

    size: int
    pages: dict[int, bytes] = field(default_factory=dict)
    since: float = 0.0


class _Change(NamedTuple):
    """A name that now stands for something else than before, in one directory. `former`: None when it was free."""

    directory: int
    name: bytes
    former: int | None
    at: float


class VolatileDisk:
    """Keeps its files in `store`, in which a tree that is there from before is taken over as synced."""

    def __init__(self, store: Path, mode: Mode, seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._mode = mode
        self._random = Random(f"power {seed}")
        self._clock = clock
        self._tree = store / "tree"
        self._objects = store / "objects"
        self._tree.mkdir(parents=True, exist_ok=True)
        self._objects.mkdir()
        self.nodes: dict[int, Node] = {ROOT: Node(ROOT, stat.S_IFDIR | 0o755, entries={})}
        self._last = ROOT
        self._changes: list[_Change] = []
        self._take_over(self._tree, self.nodes[ROOT])

    def path(self, number: int) -> Path:
        """Where the data of a file are."""
        return self._objects / str(number)

    def entries(self, directory: int) -> dict[bytes, int]:
        """The names in a directory. Raises NotADirectoryError, FileNotFoundError."""
        node = self.nodes.get(directory)
        if node is None:
            raise FileNotFoundError
        if node.entries is None:
            raise NotADirectoryError
        return node.entries

    def make(self, directory: int, name: bytes, mode: int, target: bytes = b"") -> Node:
        """A new file, directory or link. Raises FileExistsError."""
        entries = self.entries(directory)
        if name in entries:
            raise FileExistsError
        self._last += 1
        is_directory = stat.S_ISDIR(mode)
        node = Node(self._last, mode, 0, {} if is_directory else None, target)
        self.nodes[node.number] = node
        if stat.S_ISREG(mode):
            self.path(node.number).touch()
            node.unsynced = Unsynced(0, since=self._clock())
        self._name(directory, name, node.number)
        return node

    def link(self, directory: int, name: bytes, number: int) -> None:
        """Another name for a file. Raises FileExistsError."""
        if name in self.entries(directory):
            raise FileExistsError
        self._name(directory, name, number)

    def unlink(self, directory: int, name: bytes) -> None:
        """Take a name away. Raises FileNotFoundError, and OSError for a directory that is not empty."""
        number = self.entries(directory).get(name)
        if number is None:
            raise FileNotFoundError
        if self.nodes[number].entries:
            raise OSError(39, "not empty")
        self._name(directory, name, None)

    def rename(self, old: int, old_name: bytes, new: int, new_name: bytes, replace: bool = True) -> None:
        """Move a name, over another if there is one. Raises FileNotFoundError, FileExistsError."""
        number = self.entries(old).get(old_name)
        if number is None:
            raise FileNotFoundError
        replaced = self.entries(new).get(new_name)
        if replaced == number:
            return
        if replaced is not None and not replace:
            raise FileExistsError
        if replaced is not None and self.nodes[replaced].entries:
            raise OSError(39, "not empty")
        if replaced is not None and self._mode == "ext4":
            self.nodes[number].unsynced = None
        self._name(new, new_name, number)
        self._name(old, old_name, None)

    def write(self, number: int, handle: int, offset: int, content: bytes) -> int:
        """Write to an open file."""
        self._remember(number, handle, offset, offset + len(content))
        return os.pwrite(handle, content, offset)

    def truncate(self, number: int, size: int) -> None:
        """Cut a file or lengthen it."""
        handle = os.open(self.path(number), os.O_RDWR)
        try:
            self._remember(number, handle, size, os.fstat(handle).st_size)
            os.ftruncate(handle, size)
        finally:
            os.close(handle)

    def sync(self, number: int) -> None:
        """What `fsync` promises for a file or a directory."""
        self.nodes[number].unsynced = None
        if self._mode == "ext4":
            self._changes.clear()
        else:
            self._changes = [change for change in self._changes if change.directory != number]

    def age(self) -> None:
        """What a kernel writes by itself after some time."""
        if self._mode != "ext4":
            return
        now = self._clock()
        self._changes = [change for change in self._changes if now - change.at < _COMMIT_SECONDS]
        for node in self.nodes.values():
            if node.unsynced is not None and now - node.unsynced.since > _WRITEBACK_SECONDS:
                node.unsynced = None

    def cut(self) -> int:
        """The power cut: undo what is not synced. Returns how many files and names have lost something."""
        lost = 0
        kept = self._lucky_changes()
        for change in reversed(self._changes):
            if change in kept:
                continue
            lost += 1
            directory = self.nodes[change.directory]
            assert directory.entries is not None
            if change.former is None:
                directory.entries.pop(change.name, None)
            else:
                directory.entries[change.name] = change.former
        for node in self.nodes.values():
            if node.unsynced is not None:
                lost += self._undo(node)
        self._changes = []
        return lost

    def put_down(self) -> None:
        """Leave the files as a tree in the store; the disk is then of no more use."""
        self._put_down(self.nodes[ROOT], self._tree)
        for rest in self._objects.iterdir():
            rest.unlink()
        self._objects.rmdir()

    def _name(self, directory: int, name: bytes, number: int | None) -> None:
        entries = self.entries(directory)
        former = entries.get(name)
        self._changes.append(_Change(directory, name, former, self._clock()))
        if number is None:
            del entries[name]
        else:
            entries[name] = number
            self.nodes[number].names += 1
        if former is not None:
            self.nodes[former].names -= 1

    def _remember(self, number: int, handle: int, begin: int, end: int) -> None:
        """Keep what is to be overwritten of a file as it was synced."""
        node = self.nodes[number]
        if node.unsynced is None:
            node.unsynced = Unsynced(os.fstat(handle).st_size, since=self._clock())
        for page in range(begin // _PAGE, -(-min(end, node.unsynced.size) // _PAGE)):
            if page not in node.unsynced.pages:
                node.unsynced.pages[page] = os.pread(handle, _PAGE, page * _PAGE)

    def _lucky_changes(self) -> set[_Change]:
        """With `any`: of each directory the first so many of the changes that were not synced."""
        kept: set[_Change] = set()
        if self._mode == "any":
            for directory in {change.directory for change in self._changes}:
                mine = [change for change in self._changes if change.directory == directory]
                kept.update(mine[: self._random.randint(0, len(mine))])
        return kept

    def _undo(self, node: Node) -> int:
        unsynced = node.unsynced
        assert unsynced is not None
        node.unsynced = None
        if not self.path(node.number).exists():
            return 0
        handle = os.open(self.path(node.number), os.O_RDWR)
        try:
            size = os.fstat(handle).st_size
            pages = unsynced.pages
            if self._mode == "any":
                pages = {page: old for page, old in pages.items() if self._random.random() < 0.5}
                size = self._random.choice((unsynced.size, size, self._random.randint(*sorted((unsynced.size, size)))))
            else:
                size = unsynced.size
            os.ftruncate(handle, size)
            for page, old in pages.items():
                os.pwrite(handle, old[: max(0, size - page * _PAGE)], page * _PAGE)
        finally:
            os.close(handle)
        return 1

    def _take_over(self, folder: Path, node: Node) -> None:
        assert node.entries is not None
        for path in sorted(folder.iterdir()):
            self._last += 1
            mode = path.lstat().st_mode
            entries: dict[bytes, int] | None = {} if stat.S_ISDIR(mode) else None
            target = os.fsencode(path.readlink()) if stat.S_ISLNK(mode) else b""
            child = self.nodes[self._last] = Node(self._last, mode, 1, entries, target)
            node.entries[os.fsencode(path.name)] = child.number
            if stat.S_ISDIR(mode):
                self._take_over(path, child)
                path.rmdir()
            elif stat.S_ISREG(mode):
                path.rename(self.path(child.number))
            else:
                path.unlink()

    def _put_down(self, node: Node, folder: Path) -> None:
        for name, child in self._children(node):
            path = folder / os.fsdecode(name)
            if child.entries is not None:
                path.mkdir()
                self._put_down(child, path)
                path.chmod(stat.S_IMODE(child.mode))
            elif stat.S_ISREG(child.mode):
                path.hardlink_to(self.path(child.number))
                path.chmod(stat.S_IMODE(child.mode))
            elif stat.S_ISLNK(child.mode):
                path.symlink_to(os.fsdecode(child.target))

    def _children(self, node: Node) -> Iterator[tuple[bytes, Node]]:
        for name, number in (node.entries or {}).items():
            yield name, self.nodes[number]
