"""The content of a file that may be compressed: gzip, bzip2, zstd or zip, known by its first bytes, not by its name.

Content is read as a stream, so memory stays bounded whatever it expands to.
"""

from __future__ import annotations

import bz2
import gzip
import shlex
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from producer.recordings.errors import EXAMPLE, RecordingError
from producer.recordings.location import Location

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PK\x07\x08": "zip",
}
_UNPACKED_BY = {"gzip": "gzip -dc", "bzip2": "bzip2 -dc", "zstd": "zstd -dc", "zip": "unzip -p"}
_LAYERS = 2  # a server that compresses what is compressed makes two; more is no accident
_EXPANSION_FREE_BYTES = 1 << 30
_LARGEST_EXPANSION = 250  # JSON lines of ticks shrink to a tenth or, all alike, to a sixtieth
_NO_RECORDINGS = ("__MACOSX/", ".DS_Store")
_ENCRYPTED = 1


class Unreadable(Exception):
    """The content ends here, and not because it is at its end; the text says why."""


class Content:
    """The unpacked content of one file."""

    def __init__(self, place: Location, kinds: list[str], stream: Any, member: str | None) -> None:
        self.kinds = kinds
        """What it was packed in, from the outside in; empty for a plain file."""
        self.member = member
        """The name that it has in a zip archive."""
        self._place = place
        self._stream = stream
        self._packed_bytes = place.path.stat().st_size
        self._bytes = 0

    def read(self, size: int) -> bytes:
        """Up to so many bytes, none at the end. Raises Unreadable."""
        try:
            chunk: bytes = self._stream.read(size)
        except EOFError:
            raise Unreadable(f"its {self.kinds[-1]} data is cut off: the end is missing") from None
        except zipfile.BadZipFile as error:
            raise Unreadable(f"its zip data is damaged ({error})") from error
        except _damage() as error:
            kind = f"its {self.kinds[-1]} data is damaged" if self.kinds else "it cannot be read"
            raise Unreadable(f"{kind} ({error})") from error
        self._bytes += len(chunk)
        if self._bytes > max(_EXPANSION_FREE_BYTES, _LARGEST_EXPANSION * self._packed_bytes):
            raise Unreadable(
                f"its {self._packed_bytes:,} bytes expand to more than {_LARGEST_EXPANSION} times as much, as no "
                "recording does"
            )
        return chunk

    def command(self, *programs: str) -> str:
        """The command that sends this content, unpacked and passed through `programs`."""
        chain = [_UNPACKED_BY[kind] for kind in self.kinds] + list(programs)
        if self._place.argument is not None:
            chain[0] += f" {shlex.quote(self._place.argument)}"
        return f"`{' | '.join([*chain, 'tickhouse replay -'])}`"


@contextmanager
def opened(place: Location) -> Iterator[Content]:
    """The content of a file. Raises RecordingError."""
    with ExitStack() as stack:
        stream: Any = stack.enter_context(_open(place))
        kinds: list[str] = []
        member = None
        while len(kinds) < _LAYERS and (kind := _kind(place, kinds, stream)):
            if kind == "zip":
                if kinds:
                    raise RecordingError(f"{place} is a zip archive in {kinds[0]} data: unpack one of the two first")
                stream, member = _zip_member(place, stack)
            else:
                stream = stack.enter_context(_unpacked(kind, stream))
            kinds.append(kind)
        yield Content(place, kinds, stream, member)


def _open(place: Location) -> BinaryIO:
    try:
        return place.path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise RecordingError(f"there is no file {place} to replay") from None
    except IsADirectoryError:
        raise RecordingError(f"{place} is a folder: name one file in it") from None
    except PermissionError:
        raise RecordingError(f"{place} may not be read by this user: change its permissions or owner") from None
    except (OSError, ValueError) as error:
        raise RecordingError(f"{place} cannot be opened: {error}") from error


def _kind(place: Location, kinds: list[str], stream: Any) -> str | None:
    try:
        head: bytes = stream.peek(8)
    except _damage() as error:
        kind = f"its {kinds[-1]} data is damaged or cut off" if kinds else "it cannot be read"
        raise RecordingError(f"{place} holds nothing that can be read: {kind} ({error}); fetch it again") from error
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _unpacked(kind: str, stream: Any) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")
    if kind == "bzip2":
        return bz2.BZ2File(stream)
    return _zstd().ZstdFile(stream)


def _zstd() -> Any:
    # Loaded for zstd data only: all others start without it.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _damage() -> tuple[type[Exception], ...]:
    """What is raised where data is not what it should be; zstd's own error only where its library is in use."""
    zstd = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    errors = (OSError, EOFError, zlib.error, zipfile.BadZipFile)
    return errors if zstd is None else (*errors, zstd.ZstdError)


def _zip_member(place: Location, stack: ExitStack) -> tuple[Any, str]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(place.path))
    except (OSError, zipfile.BadZipFile) as error:
        raise RecordingError(
            f"{place} is a zip archive that is cut off or damaged: the list of its files, which stands at the end, "
            f"cannot be read ({error}); fetch it again"
        ) from error
    files = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not any(name in info.filename for name in _NO_RECORDINGS)
    ]
    if not files:
        raise RecordingError(f"{place} is a zip archive without a file in it")
    if len(files) > 1:
        names = ", ".join(info.filename for info in files[:3]) + (", …" if len(files) > 3 else "")
        if any(info.filename == "[Content_Types].xml" for info in files):
            raise RecordingError(
                f"{place} is an Office document: export the ticks in it as JSON lines such as {EXAMPLE}"
            )
        raise RecordingError(
            f"{place} is a zip archive of {len(files)} files ({names}), and a recording is one: send them one by one, "
            f"`unzip -p {shlex.quote(str(place))} {shlex.quote(files[0].filename)} | tickhouse replay -`"
        )
    if files[0].flag_bits & _ENCRYPTED:
        raise RecordingError(
            f"{place} is encrypted with a password: unpack it with `unzip {place}` and send the file in it"
        )
    try:
        return stack.enter_context(archive.open(files[0])), files[0].filename
    except NotImplementedError as error:
        raise RecordingError(
            f"{place} is packed in a way that cannot be read here ({error}): unpack it first"
        ) from error
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise RecordingError(f"{place} is a damaged zip archive ({error}): fetch it again") from error
