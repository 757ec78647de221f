"""The marker file that says that a folder was made by this product, and so may be emptied by it."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tickhouse.files import write_json

MARKER = "tickhouse.json"
FORMAT = 1

Kind = Literal["home", "tools"]
_OPTIONS: dict[Kind, str] = {"home": "--home or TICKHOUSE_HOME", "tools": "TICKHOUSE_TOOLS"}
"""How another one is named."""


class NotOurs(RuntimeError):
    """A folder is not, or not known to be, one that this product made; the text says what to do."""


class Marker(BaseModel):
    """What the marker says."""

    model_config = ConfigDict(extra="ignore")

    product: Literal["tickhouse"] = "tickhouse"
    kind: Kind
    id: uuid.UUID
    format: int


def read_marker(folder: Path, kind: Kind) -> Marker | None:
    """The marker of a folder; None when there is none. Raises NotOurs when it is not a valid one of that kind."""
    path = folder / MARKER
    try:
        # What a link leads to was written for another folder.
        text = b"" if path.is_symlink() else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        marker = Marker.model_validate_json(text)
    except ValidationError as error:
        raise NotOurs(
            f"{path} is damaged, so it is not certain that Tickhouse made {folder}: if it did, remove that file, and "
            "the next `tickhouse up` writes it again"
        ) from error
    if marker.kind != kind:
        raise NotOurs(
            f"{folder} is a {marker.kind} folder of Tickhouse, and a {kind} folder is needed: name another with "
            f"{_OPTIONS[kind]}"
        )
    if marker.format > FORMAT:
        raise NotOurs(f"{folder} was made by a later version of Tickhouse: use that version, or another folder")
    return marker


def obstacle(folder: Path, kind: Kind, contents: Collection[str], earlier: Collection[str]) -> str | None:
    """Why a folder cannot become one of this product; None when it can, or is one already.

    `contents`: names of what will be made in it, `earlier`: those that a version made there that wrote no markers. What
    else is there under such a name is somebody else's.
    """
    try:
        if read_marker(folder, kind) is not None:
            return None
    except NotOurs as error:
        return str(error)
    there = (name for name in contents if (folder / name).exists() or (folder / name).is_symlink())
    taken = sorted({*there} - {*earlier})
    if not taken:
        return None
    return (
        f"{folder} contains {', '.join(taken)}, which Tickhouse did not make and would overwrite: name another folder "
        f"with {_OPTIONS[kind]}"
    )


def mark(folder: Path, kind: Kind, contents: Collection[str], earlier: Collection[str]) -> None:
    """Mark a folder that exists, unless it is marked. Raises NotOurs where there is an obstacle, and OSError."""
    reason = obstacle(folder, kind, contents, earlier)
    if reason is not None:
        raise NotOurs(reason)
    if read_marker(folder, kind) is None:
        write_json(folder / MARKER, Marker(kind=kind, id=uuid.uuid4(), format=FORMAT).model_dump(mode="json"))
