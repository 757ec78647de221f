"""Mounts a `VolatileDisk` by FUSE: `python -m tests.chaos.power_filesystem STORE MOUNT MODE SEED`.

SIGUSR1 is the power cut: nothing is lost or kept after that moment, and every call fails. SIGTERM ends it: what has
survived, or everything if there was no cut, is then the tree in the store. It prints `mounted` when it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyfuse3
import trio

from tests.chaos.volatile_disk import Mode, Node, VolatileDisk

_LOOK_SECONDS = 1.0
_CACHED_SECONDS = 300.0
"""How long the kernel may believe what it was told: nobody else changes anything."""


class _Filesystem(pyfuse3.Operations):
    def __init__(self, disk: VolatileDisk) -> None:
        super().__init__()
        self._disk = disk
        self._handles: dict[int, int] = {}
        """Descriptor to the number of the file. A directory's handle is its number, negative."""
        self.cut = False
        self.lost = 0

    def power_cut(self) -> None:
        if not self.cut:
            self.cut = True
            self.lost = self._disk.cut()

    def _powered(self) -> None:
        if self.cut:
            raise pyfuse3.FUSEError(errno.EIO)

    def _node(self, number: int) -> Node:
        self._powered()
        node = self._disk.nodes.get(number)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return node

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = node.number
        attributes.st_mode = node.mode
        attributes.st_nlink = node.names
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        attributes.st_blksize = 4_096
        if stat.S_ISREG(node.mode):
            found = self._disk.path(node.number).stat()
            attributes.st_size, attributes.st_blocks = found.st_size, found.st_blocks
            attributes.st_mtime_ns, attributes.st_atime_ns = found.st_mtime_ns, found.st_atime_ns
            attributes.st_ctime_ns = found.st_ctime_ns
        attributes.attr_timeout = attributes.entry_timeout = _CACHED_SECONDS
        return attributes

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        self._powered()
        with _told():
            entries = self._disk.entries(parent_inode)
        if name == b".":
            return self._attributes(self._node(parent_inode))
        if name not in entries:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(self._node(entries[name]))

    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        return self._attributes(self._node(inode))

    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        if fields.update_size:
            self._disk.truncate(inode, attr.st_size)
        if fields.update_mode:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(attr.st_mode)
        if fields.update_mtime and stat.S_ISREG(node.mode):
            os.utime(self._disk.path(inode), ns=(attr.st_mtime_ns, attr.st_mtime_ns))
        return self._attributes(node)

    async def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return True

    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        found, answer = os.statvfs(self._disk.path(0).parent), pyfuse3.StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(answer, name, getattr(found, name))
        answer.f_namemax = 255
        return answer

    async def opendir(self, inode: int, ctx: Any) -> int:
        self._node(inode)
        return inode

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        self._powered()
        names = list(self._disk.entries(fh).items())
        for position, (name, number) in enumerate(names[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, name, self._attributes(self._disk.nodes[number]), position):
                return

    async def releasedir(self, fh: int) -> None:
        return

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._node(fh)
        self._disk.sync(fh)

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        return self._made(parent_inode, name, stat.S_IFDIR | stat.S_IMODE(mode & ~ctx.umask))

    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> pyfuse3.EntryAttributes:
        return self._made(parent_inode, name, mode & ~ctx.umask)

    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        return self._made(parent_inode, name, stat.S_IFLNK | 0o777, target)

    def _made(self, parent: int, name: bytes, mode: int, target: bytes = b"") -> pyfuse3.EntryAttributes:
        self._powered()
        with _told():
            return self._attributes(self._disk.make(parent, name, mode, target))

    async def readlink(self, inode: int, ctx: Any) -> bytes:
        return self._node(inode).target

    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        with _told():
            self._disk.link(new_parent_inode, new_name, inode)
        return self._attributes(node)

    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        self._powered()
        with _told():
            self._disk.unlink(parent_inode, name)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        await self.unlink(parent_inode, name, ctx)

    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: Any
    ) -> None:
        self._powered()
        if flags & pyfuse3.RENAME_EXCHANGE:
            raise pyfuse3.FUSEError(errno.EINVAL)
        replace = not flags & pyfuse3.RENAME_NOREPLACE
        with _told():
            self._disk.rename(parent_inode_old, name_old, parent_inode_new, name_new, replace)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        attributes = self._made(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode & ~ctx.umask))
        return await self.open(attributes.st_ino, flags, ctx), attributes

    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        self._node(inode)
        if flags & os.O_TRUNC:
            self._disk.truncate(inode, 0)
        handle = os.open(self._disk.path(inode), os.O_RDWR)
        self._handles[handle] = inode
        return pyfuse3.FileInfo(fh=cast(Any, handle), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        self._powered()
        return os.pread(fh, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self._powered()
        return self._disk.write(self._handles[fh], fh, off, buf)

    async def flush(self, fh: int) -> None:
        self._powered()

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._powered()
        self._disk.sync(self._handles[fh])

    async def release(self, fh: int) -> None:
        os.close(fh)
        del self._handles[fh]

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        return


@contextlib.contextmanager
def _told() -> Any:
    """Give the model's errors to the kernel."""
    try:
        yield
    except FileNotFoundError:
        raise pyfuse3.FUSEError(errno.ENOENT) from None
    except FileExistsError:
        raise pyfuse3.FUSEError(errno.EEXIST) from None
    except NotADirectoryError:
        raise pyfuse3.FUSEError(errno.ENOTDIR) from None
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno or errno.EIO) from None


async def _serve(disk: VolatileDisk, filesystem: _Filesystem) -> None:
    async def watch() -> None:
        with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGTERM) as signals:
            print("mounted", flush=True)
            async for number in signals:
                if number == signal.SIGTERM:
                    pyfuse3.terminate()
                    return
                filesystem.power_cut()
                print(f"cut {filesystem.lost}", flush=True)

    async def age() -> None:
        while True:
            await trio.sleep(_LOOK_SECONDS)
            if not filesystem.cut:
                disk.age()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(age)
        nursery.start_soon(watch)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main(store: str, mount: str, mode: str, seed: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    disk = VolatileDisk(Path(store), cast(Mode, mode), int(seed))
    filesystem = _Filesystem(disk)
    pyfuse3.init(filesystem, mount, {"fsname=tickhouse-chaos", "default_permissions"})
    try:
        trio.run(_serve, disk, filesystem)
    finally:
        pyfuse3.close(unmount=True)
        disk.put_down()


if __name__ == "__main__":
    main(*sys.argv[1:])
