"""The files of a checkpoint, wherever it is kept.

On a local disk a file is written beside its place, forced to disk and renamed: it is there whole or not at all, after a
power cut as well. Spark's own files there are renamed, but not forced to disk (see `tickhouse.files`): after a power
cut the newest may be empty or cut short.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any, Protocol

from pyspark.sql import SparkSession

from tickhouse.files import force
from tickhouse.places import local_path

_CRC_HEADER = struct.Struct(">4si")
_CRC_PIECE = 65_536
"""Of a file has one checksum: those of 60 MB are then in one page, which a power cut does not tear."""


class CheckpointFiles(Protocol):
    """Files by their path below the checkpoint's folder, such as `offsets/7`."""

    place: str
    """Where the checkpoint is."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of the files in a folder, by name; empty when there is no such folder."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when there is none, and nothing when it is not what was written."""
        ...

    def write(self, name: str, content: str) -> None:
        """Write or replace a file."""
        ...

    def is_copied(self, other_place: str, name: str) -> bool:
        """Whether another place, not this one by another name, has a file `name`."""
        ...


class LocalFiles:
    """A checkpoint on this machine's disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    def sizes(self, folder: str) -> dict[str, int]:
        """As `CheckpointFiles`."""
        try:
            return {path.name: path.stat().st_size for path in (self._folder / folder).iterdir() if path.is_file()}
        except FileNotFoundError:
            return {}

    def read(self, name: str) -> bytes | None:
        """As `CheckpointFiles`."""
        path = self._folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        return content if _agrees(content, _checksums(path)) else b""

    def write(self, name: str, content: str) -> None:
        """As `CheckpointFiles`."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
                # As any other file, not for its owner alone as temporary files are.
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            # The checksum beside a file, if there is one, is the old content's: first it goes, and is sure to be gone.
            checksums = _checksums(path)
            if checksums.exists():
                checksums.unlink()
                force((), (path.parent,))
            Path(temporary).replace(path)
            force((), (path.parent,))
            checksums.write_bytes(_noted_as_hadoop(content.encode()))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def is_copied(self, other_place: str, name: str) -> bool:
        """As `CheckpointFiles`."""
        other = local_path(other_place)
        if other is None or not (other / name).exists():
            return False
        return not (self._folder.exists() and self._folder.samefile(other))


def _agrees(content: bytes, checksums: Path) -> bool:
    """Whether content is that of which Hadoop noted checksums; without any, or with none that are whole, it passes.

    They are a header with the length of the pieces, and the CRC-32 of each piece.
    """
    try:
        noted = checksums.read_bytes()
    except FileNotFoundError:
        return True
    if len(noted) < _CRC_HEADER.size or noted[:4] != b"crc\0":
        return True
    _, piece = _CRC_HEADER.unpack_from(noted)
    return piece > 0 and noted[_CRC_HEADER.size :] == _sums(content, piece)


def _checksums(path: Path) -> Path:
    """Where Hadoop notes the checksums of a file, and compares them when Spark reads it."""
    return path.with_name(f".{path.name}.crc")


def _noted_as_hadoop(content: bytes) -> bytes:
    return _CRC_HEADER.pack(b"crc\0", _CRC_PIECE) + _sums(content, _CRC_PIECE)


def _sums(content: bytes, piece: int) -> bytes:
    found = [zlib.crc32(content[begin : begin + piece]) for begin in range(0, len(content), piece)]
    return b"".join(number.to_bytes(4, "big") for number in found)


class RemoteFiles:
    """A checkpoint at any URI that Spark can write."""

    def __init__(self, spark: SparkSession, uri: str) -> None:
        jvm: Any = spark.sparkContext._jvm
        self._jvm = jvm
        self.place = uri
        self._folder = jvm.org.apache.hadoop.fs.Path(uri)
        self._files = self._folder.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())

    def sizes(self, folder: str) -> dict[str, int]:
        """As `CheckpointFiles`."""
        path = self._path(folder)
        if not self._files.exists(path):
            return {}
        return {status.getPath().getName(): status.getLen() for status in self._files.listStatus(path)}

    def read(self, name: str) -> bytes | None:
        """As `CheckpointFiles`."""
        path = self._path(name)
        if not self._files.exists(path):
            return None
        stream = self._files.open(path)
        try:
            return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()

    def write(self, name: str, content: str) -> None:
        """As `CheckpointFiles`; whole or not at all where the store makes a file visible when it is closed."""
        stream = self._files.create(self._path(name), True)
        try:
            stream.write(content.encode())
        finally:
            stream.close()

    def is_copied(self, other_place: str, name: str) -> bool:
        """As `CheckpointFiles`."""
        if other_place == self.place:
            return False
        other = self._jvm.org.apache.hadoop.fs.Path(other_place, name)
        return bool(self._files.getScheme() == other.toUri().getScheme() and self._files.exists(other))

    def _path(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(self._folder, name) if name else self._folder


def files_at(uri: str, spark: SparkSession) -> CheckpointFiles:
    """The files of the checkpoint at a path or URI."""
    folder = local_path(uri)
    return RemoteFiles(spark, uri) if folder is None else LocalFiles(folder)
