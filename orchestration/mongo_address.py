"""MongoDB's connection string without what must not be seen: for showing it, and for keeping it in a file.

Pure: no I/O.
"""

from __future__ import annotations

import re

_SECRET_OPTION = r"(?:tlsCertificateKeyFilePassword|authMechanismProperties)"  # noqa: S105 -- names, no password


def without_password(uri: str) -> str:
    """A connection string fit to be shown: user and password replaced, and options that hold secrets."""
    # Up to the last @: a password whose own @ or / is not escaped is a mistake, and yet not to be shown.
    shown = re.sub(r"//.*@", "//***@", uri)
    return re.sub(rf"(?i)\b({_SECRET_OPTION})=[^&]*", r"\1=***", shown)


def without_secrets(uri: str) -> str:
    """A connection string fit to be kept: the same servers and options, without user, password and other secrets."""
    kept = re.sub(r"//.*@", "//", uri)
    return re.sub(rf"(?i)(?<=[?&]){_SECRET_OPTION}=[^&]*(?:&|$)", "", kept).rstrip("?&")
