"""What must be right before the stack starts, each found out beforehand and said in one plain sentence."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from orchestration.local import home as homes
from orchestration.local import processes
from orchestration.local.artifacts import missing, mongod_on_path
from orchestration.local.home_lock import holder
from orchestration.local.java import JavaMissing, find_java
from orchestration.local.limits import too_low
from orchestration.local.paths import unusable
from orchestration.local.ports import is_free
from orchestration.settings import OrchestrationSettings
from producer.recordings.errors import RecordingError
from producer.recordings.location import is_piped, location
from tickhouse.environment import (
    KEEP,
    executes,
    has_short_sockets,
    helper_environment,
    left_out,
    system_scratch,
)

OLDEST_PYTHON = (3, 11)
LEAST_FREE_BYTES = 2_000_000_000
"""What a day of a few symbols takes, with room for maintenance."""
TOOLS_BYTES = 500_000_000
_PROBE_SECONDS = 30
_MONGOD_LIBRARIES = {
    "libcurl.so.4": "libcurl4 (Debian, Ubuntu) or libcurl (Fedora)",
    "libcrypto.so.3": "openssl 3 (libssl3 on Debian and Ubuntu)",
}


def find_problems(settings: OrchestrationSettings, environment: Mapping[str, str], *, ui: bool = True) -> list[str]:
    """Every reason why `up` would fail with these settings, with its remedy; empty when all is well.

    `ui`: whether the Dagster UI and the board are to run, and so need their ports.
    """
    pid = holder(settings.home)
    if pid is not None:
        # Its ports are taken by itself: nothing else that could be said would help.
        return [
            f"Another `tickhouse up` (process {pid}) runs with the home {settings.home}: stop it with "
            f"`tickhouse down --home {settings.home}`, or choose another home with --home."
        ]
    lacking = missing(settings.tools, environment)
    problems = [
        *_python(sys.version_info[:2]),
        *unusable(settings),
        *_interpreter(environment),
        *_home(settings.home),
        *_tools(settings.tools, lacking, environment),
        *too_low(),
        *_source(settings),
        *_space(settings, lacking),
        *_java(environment),
        *_libraries(environment, tuple(_MONGOD_LIBRARIES)),
        *_ports(settings, ui=ui),
    ]
    if lacking and not problems:
        problems += _network(lacking)
    return problems


def _python(version: tuple[int, ...]) -> Iterator[str]:
    if version < OLDEST_PYTHON:
        yield (
            f"Python {version[0]}.{version[1]} is too old: install Python 3.11 or later and run "
            "`make setup PYTHON3=/path/to/it`."
        )


def _home(home: Path) -> Iterator[str]:
    reason = homes.obstacle(home)
    if reason is not None:
        yield f"{reason}."
        return
    folder = _existing(home)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield f"The home {home} cannot be written to: choose another with --home or TICKHOUSE_HOME."
        return
    places = [home / "tmp", *system_scratch()]
    told = " and ".join(map(str, places))
    if not any(map(executes, places)):
        yield (
            f"Java cannot load the libraries that it unpacks in {told}, where nothing may be executed (noexec): choose "
            "another home with --home, or let TMPDIR name another folder."
        )
    if not any(map(has_short_sockets, places)):
        yield f"The paths {told} are too long for sockets: choose a home with a shorter path, or let TMPDIR name one."


def _interpreter(environment: Mapping[str, str]) -> Iterator[str]:
    """Whether this Python starts as it is started for the programs of the stack."""
    variables = helper_environment(environment)
    started = subprocess.run([sys.executable, "-c", ""], env=variables, capture_output=True, text=True, check=False)
    if started.returncode != 0:
        ignored = ", ".join(left_out(environment)) or "none"
        yield (
            f"Python does not start without what is ignored of the environment ({ignored}): "
            f"{(started.stderr.strip().splitlines() or ['no reason is given'])[-1]}. Name what it needs in {KEEP}."
        )


def _tools(tools: Path, lacking: list[str], environment: Mapping[str, str]) -> Iterator[str]:
    folder = _existing(tools)
    if lacking and not os.access(folder, os.W_OK | os.X_OK):
        yield (
            f"The folder {tools} lacks {', '.join(lacking)} and cannot be written to: run `make tools` as its owner, "
            "or choose another with TICKHOUSE_TOOLS."
        )
    if mongod_on_path(environment) is None and not executes(folder):
        yield (
            f"The file system of {tools} lets no program be executed (noexec), and mongod is there: choose another "
            "folder with TICKHOUSE_TOOLS, or put a mongod of your own on PATH."
        )


def _source(settings: OrchestrationSettings) -> Iterator[str]:
    file = settings.replay_file
    if file is None or is_piped(file):  # what is in a pipe shows when it is read, once
        return
    # Loaded for a replay only: it takes as long as all other checks.
    from producer.recordings.recording import Recording

    try:
        Recording(location(file), settings.replay_symbol or None)
    except RecordingError as error:
        yield f"{error}."


def _space(settings: OrchestrationSettings, lacking: list[str]) -> Iterator[str]:
    needed = {settings.home: LEAST_FREE_BYTES}
    if lacking:
        needed[settings.tools] = TOOLS_BYTES
    for folder, least in needed.items():
        free = shutil.disk_usage(_existing(folder)).free
        if free < least:
            yield (
                f"The disk of {folder} has {free / 1e9:.1f} GB free and {least / 1e9:.1f} GB are needed: make room, "
                f"or choose a folder on another disk with {'--home' if folder == settings.home else 'TICKHOUSE_TOOLS'}."
            )


def _java(environment: Mapping[str, str]) -> Iterator[str]:
    try:
        find_java(environment)
    except JavaMissing as error:
        yield f"{error}"


def _libraries(environment: Mapping[str, str], names: tuple[str, ...]) -> Iterator[str]:
    if mongod_on_path(environment) is not None:
        return
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            yield (
                f"The library {name}, which mongod needs, is missing: install {_MONGOD_LIBRARIES.get(name, name)} "
                "with the system's package manager, or put a mongod of your own on PATH."
            )


def _ports(settings: OrchestrationSettings, *, ui: bool) -> Iterator[str]:
    if settings.port == 0:
        return
    asked = {
        "Kafka": ("kafka", settings.kafka_port, "TICKHOUSE_KAFKA_PORT"),
        "MongoDB": ("mongod", settings.mongo_port, "TICKHOUSE_MONGO_PORT"),
    }
    if ui:
        asked["the Dagster UI"] = ("webserver", settings.port, "--port")
        asked["the board"] = ("board", settings.board_port, "TICKHOUSE_BOARD_PORT")
    users: dict[int, str] = {}
    for service, (process, port, option) in asked.items():
        if port and port in users:
            yield f"Port {port} is meant for both {users[port]} and {service}: name another with {option}."
        users[port] = service
        if port and not is_free(port) and not _left_behind(settings.home, process, port):
            yield (
                f"Port {port} on 127.0.0.1, meant for {service}, is in use: stop what uses it, name another with "
                f"{option}, or let every service take a free one with --port 0."
            )


def _left_behind(home: Path, name: str, port: int) -> bool:
    """Whether the port is held by what an `up` of this home left behind when it was killed: the next one ends that."""
    process = processes.recorded(home, name)
    if process is None or not processes.alive(process):
        return False
    try:
        connections = psutil.Process(process.pid).net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in connections)


def _network(lacking: list[str]) -> Iterator[str]:
    """Ask the package index the way the fetch will."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "0", "--timeout", "10"]
    try:
        answer = subprocess.run(
            [*command, "index", "versions", "pip"],
            env=helper_environment(needs=("pip",)),
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
        reached = answer.returncode == 0
    except subprocess.TimeoutExpired:
        reached = False
    if not reached:
        yield (
            f"The first start has to fetch {', '.join(lacking)}, and the package index does not answer: connect to a "
            "network, or set the proxy that yours needs, and try again."
        )


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
