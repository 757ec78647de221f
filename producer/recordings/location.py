"""Where a recording is: the path that somebody means, and a file of what can be read only once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from producer.recordings.errors import RecordingError
from tickhouse.settings import absolute

_CHUNK_BYTES = 1 << 20
_LEAST_FREE_BYTES = 1_000_000_000
_STANDARD_INPUT = "/dev/stdin"
# What is there belongs to the process that names it: another one finds something else under the same name.
_OWN_FOLDERS = ("/dev/", "/proc/")


class Location(NamedTuple):
    """A file, and what it is called in messages."""

    path: Path
    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def argument(self) -> str | None:
        """How a command line names it, None for what was read from a pipe."""
        return self.name if self.name == str(self.path) else None


def location(path: Path, name: str = "") -> Location:
    """A file by its path; `name` is for what was kept from a pipe."""
    return Location(path, name or str(path))


def path_of(text: str) -> Path:
    """The absolute path that is meant by `text`: also `-`, `~/…` and `file://…`. Raises RecordingError."""
    if text == "-":
        return Path(_STANDARD_INPUT)
    parts = urlsplit(text) if "://" in text else None
    if parts is not None and parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise RecordingError(f"{text} is on another machine: copy the file to this one")
        text = unquote(parts.path)
    elif parts is not None and parts.scheme in ("http", "https", "ftp", "s3"):
        raise RecordingError(f"{text} is an address: download the file first")
    if not text or "\0" in text:
        raise RecordingError("the path of the recording is empty" if not text else "a path holds no NUL")
    try:
        return absolute(Path(text))
    except (OSError, ValueError) as error:
        raise RecordingError(f"{text} {error}") from error


def is_piped(path: Path) -> bool:
    """Whether what is there can be read only once, or by this process only."""
    try:
        return str(path).startswith(_OWN_FOLDERS) or (path.exists() and not path.is_file() and not path.is_dir())
    except OSError:
        return False


@contextmanager
def readable_again(path: Path, folder: Path) -> Iterator[Location]:
    """A file that any process can read as often as it likes: `path`, or a copy of what a pipe holds, in `folder`.

    The folder is emptied. Raises RecordingError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not is_piped(path):
        yield location(path)
        return
    try:
        folder.mkdir(parents=True)
        # The name may tell the symbol.
        copy = folder / path.name
        _copy(path, copy)
        yield location(copy, "standard input" if str(path) == _STANDARD_INPUT else str(path))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(path: Path, copy: Path) -> None:
    try:
        with path.open("rb", buffering=0) as source, copy.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
                if shutil.disk_usage(copy.parent).free < _LEAST_FREE_BYTES:
                    raise RecordingError(
                        f"{path} does not fit onto the disk of {copy.parent}, where it is kept while it is sent: make "
                        "room, or send it in parts"
                    )
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
