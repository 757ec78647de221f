"""Which paths and URIs are on this machine's disk."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def local_path(uri: str) -> Path | None:
    """The folder that a path or a `file:` URI names; None for a URI of another kind."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in uri else Path(uri)
