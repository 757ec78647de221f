"""What a program that the product starts gets of its caller's environment: what is listed here, and nothing else.

Hundreds of variables change what programs in Python, Java and C++ run, where they read their configuration and whom
they ask. Nobody can list those, so what passes is listed instead, and the rest is decided here. Whoever needs more
names it in `TICKHOUSE_KEEP_ENVIRONMENT`.
"""

from __future__ import annotations

import os
import pwd
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PREFIX = "TICKHOUSE_"
KEEP = f"{PREFIX}KEEP_ENVIRONMENT"

Need = Literal["proxies", "cloud", "pip"]
"""What only some programs need: a way to the outside, credentials of the cloud that has the tables, pip's settings."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_EXCEPT_PROXIES = ("no_proxy", "NO_PROXY")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PASSED = {
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "JAVA_HOME",
    # Certificate authorities of an organisation.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
}
_PASSED_FOR: Mapping[Need, tuple[str, ...]] = {
    "proxies": (*PROXIES, *_EXCEPT_PROXIES),
    "cloud": (*PROXIES, *_EXCEPT_PROXIES, "AWS_", "AZURE_", "GOOGLE_"),
    "pip": (*PROXIES, *_EXCEPT_PROXIES, "PIP_"),
}
"""Names, and prefixes that end in an underscore."""
DECIDED: Mapping[str, str] = {
    # Modules come from the installation: not from the current folder, nor from the user's own site-packages.
    "PYTHONSAFEPATH": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
    # Text in files, names of files, and times in logs are the same everywhere.
    "PYTHONUTF8": "1",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # No process multiplies matrices, and starting a thread for it takes a quarter of the CPU of a start.
    "OPENBLAS_NUM_THREADS": "1",
}
_INFLUENTIAL = re.compile(
    r"PYTHON|PYSPARK_|SPARK_|HADOOP_|HDFS_|YARN_|HIVE_|KAFKA_|DAGSTER_|MONGO|PIP_|AWS_|AZURE_|GOOGLE_|LD_|MALLOC_"
    r"|GLIBC_TUNABLES|OPENSSL_|OPENBLAS_|OMP_|MKL_|GRPC_|(no_)?grpc_proxy|GRPC_PROXY|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS"
    r"|JDK_JAVA_OPTIONS|JAVA_OPTS|CLASSPATH|BASH_ENV|TMPDIR|MPL"
)
"""Variables that are known to change what such programs do. Only for telling people: what passes is listed above."""
_LONGEST_SOCKET = 107
_SOCKET_NAME = len("/pymp-abcdefgh/listener-abcdefgh")


@dataclass(frozen=True)
class Account:
    """Who runs the programs. `home`: a folder that this user can write to."""

    user: str
    home: Path


def child_environment(
    given: Mapping[str, str], scratch: Path, account: Account, needs: tuple[Need, ...] = ()
) -> dict[str, str]:
    """The environment of a program whose caller has `given`. `scratch`: the folder of its temporary files. Pure."""
    passed = {name: value for name, value in given.items() if _passes(name, needs, kept_names(given))}
    folders = passed.get("PATH", os.defpath).split(os.pathsep)
    # What is not absolute would be looked for in the current folder.
    passed["PATH"] = os.pathsep.join(folder for folder in folders if Path(folder).is_absolute())
    if any(name in passed for name in PROXIES):
        hosts = ",".join(filter(None, (*(given.get(name, "") for name in _EXCEPT_PROXIES), *_LOOPBACK)))
        passed |= dict.fromkeys(_EXCEPT_PROXIES, ",".join(dict.fromkeys(re.split(r"[\s,]+", hosts))))
    own = {"HOME": str(account.home), "USER": account.user, "LOGNAME": account.user, "TMPDIR": str(scratch)}
    kept = {name: given[name] for name in kept_names(given) if name in given}
    return {**passed, **DECIDED, **own, **kept}


def helper_environment(given: Mapping[str, str] = os.environ, needs: tuple[Need, ...] = ()) -> dict[str, str]:
    """The environment of a program that runs for a moment and belongs to no home."""
    scratch = next(iter(system_scratch()), Path("/tmp"))  # noqa: S108
    return child_environment(given, scratch, find_account(given, scratch), needs)


def kept_names(given: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that the caller wants passed on beside those that are listed."""
    return tuple(filter(None, re.split(r"[\s,]+", given.get(KEEP, ""))))


def left_out(given: Mapping[str, str], in_the_cloud: bool = False) -> list[str]:
    """Which of the caller's variables would change what a program does, and reach none of the stack's. Sorted."""
    everything: tuple[Need, ...] = ("proxies", "pip", "cloud") if in_the_cloud else ("proxies", "pip")
    return sorted(
        name
        for name, value in given.items()
        if value
        and _INFLUENTIAL.match(name)
        and not _passes(name, everything, kept_names(given))
        and value != DECIDED.get(name)
    )


def told(given: Mapping[str, str], in_the_cloud: bool) -> Iterator[str]:
    """What of the caller's environment counts for the stack's programs, and what does not, in sentences."""

    def shown(names: Iterable[str]) -> str:
        return ", ".join(sorted(names))

    proxies = [name for name in PROXIES if given.get(name)]
    if proxies:
        tables = ", the tables" if in_the_cloud else ""
        yield f"{shown(proxies)}: for the exchange, the webhook{tables} and fetches only, never for this machine"
    if kept := [name for name in kept_names(given) if name in given]:
        yield f"{shown(kept)}: passed on to all programs of the stack, as {KEEP} has it"
    if ignored := left_out(given, in_the_cloud):
        yield f"{shown(ignored)}: ignored by the programs of the stack; {KEEP}=NAME,… passes on what is named there"


def _passes(name: str, needs: tuple[Need, ...], kept: Collection[str]) -> bool:
    listed = [entry for need in needs for entry in _PASSED_FOR[need]]
    return (
        name in _PASSED
        or name in kept
        or name in listed
        or name.startswith((PREFIX, *(entry for entry in listed if entry.endswith("_"))))
    )


def in_the_cloud(*uris: str) -> bool:
    """Whether one of these folders, paths or URIs, is not on a disk of this machine."""
    return any("://" in uri and not uri.startswith("file:") for uri in uris)


def find_account(given: Mapping[str, str], otherwise: Path) -> Account:
    """The user's account; a name, and `otherwise` for a home, where the system knows none, as in some containers."""
    try:
        user, home = pwd.getpwuid(os.geteuid())[0::5][:2]
    except KeyError:
        user, home = "tickhouse", ""
    home = given.get("HOME") or home
    usable = bool(home) and Path(home).is_absolute() and os.access(home, os.W_OK | os.X_OK)
    return Account(user, Path(home) if usable else otherwise)


def user_has_a_name() -> bool:
    """Whether the system's list of users has the one that runs this process."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def scratch_folder(home: Path, name: str = "") -> Path:
    """The folder for temporary files of a program of that home, created when missing: in the home, if that suits.

    With a `name` it is of a stream, and else of a service.
    """
    suits = executes if name else has_short_sockets
    places = [home / "tmp" / name, *system_scratch()]
    places[0].mkdir(parents=True, exist_ok=True)
    return next(filter(suits, places), places[0])


def system_scratch() -> list[Path]:
    """The system's folder for temporary files, if there is one that can be written to."""
    try:
        return [Path(tempfile.gettempdir())]
    except OSError:
        return []


def has_short_sockets(folder: Path) -> bool:
    """Whether the path of a socket there is not longer than the system allows."""
    return len(os.fsencode(folder)) + _SOCKET_NAME <= _LONGEST_SOCKET


def executes(folder: Path) -> bool:
    """Whether programs and libraries in that folder may be executed; where it is missing, in what will hold it."""
    while not folder.exists():
        folder = folder.parent
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC
