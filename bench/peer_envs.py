"""What peers need and the project does not: Python environments of their own, further JARs, compiled Java.

A peer that cannot be made ready is left out, and what was answered is told.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestration.local.artifacts import FetchFailed, ensure_jars, kafka_jars, locked
from orchestration.local.java import Java

PEERS = Path(__file__).parent / "peers"
_INSTALL_SECONDS = 900


class Unavailable(Exception):
    """A peer cannot be had on this machine; the message says what was tried and answered."""


@dataclass(frozen=True)
class Workshop:
    """Where peers are made ready."""

    tools: Path
    java: Java
    say: Callable[[str], None]

    @property
    def folder(self) -> Path:
        """Where what peers need is kept."""
        return self.tools / "peers"

    def python(self, peer: str) -> Path:
        """The interpreter of a peer's environment, made from its lock file unless it is there. Raises Unavailable."""
        lock = PEERS / peer / "requirements.txt"
        wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
        folder = self.folder / peer
        made_of = folder / "made-of"
        interpreter = folder / "bin" / "python"
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f".{peer}.lock"):
            if made_of.is_file() and made_of.read_text() == wanted:
                return interpreter
            self.say(f"Installing {peer} in an environment of its own (once)")
            shutil.rmtree(folder, ignore_errors=True)
            self._call([sys.executable, "-m", "venv", str(folder)])
            command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            self._call([*command, "--require-hashes", "--requirement", str(lock)])
            made_of.write_text(wanted)
        return interpreter

    def jars(self, peer: str, bundle: str) -> Path:
        """The folder of a peer's JARs, fetched unless they are there. Raises Unavailable."""
        try:
            return ensure_jars(self.folder, bundle, PEERS / peer, self.java, os.environ)
        except FetchFailed as error:
            raise Unavailable(str(error)) from error

    def classes(self, peer: str, class_path: str) -> Path:
        """The folder of a peer's compiled Java. Raises Unavailable, without a compiler for instance."""
        compiler = self.java.path / "bin" / "javac"
        found = str(compiler) if compiler.is_file() else shutil.which("javac")
        if found is None:
            raise Unavailable("no javac: the Java found here is a runtime, not a development kit")
        folder = self.folder / f"{peer}-classes"
        shutil.rmtree(folder, ignore_errors=True)
        sources = [str(source) for source in sorted((PEERS / peer).glob("*.java"))]
        release = ["--release", str(self.java.version)]
        self._call([found, *release, "-d", str(folder), "-cp", class_path, *sources])
        return folder

    def broker_jars(self) -> Path:
        """The folder of the broker's JARs, which hold Kafka's client as well."""
        return kafka_jars(self.tools)

    def _call(self, command: list[str]) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{Path(command[0]).name} was not done after {_INSTALL_SECONDS} s") from error
        if done.returncode != 0:
            answer = (done.stderr or done.stdout).strip().splitlines()
            raise Unavailable(f"{' '.join(command[:4])} answered: {answer[-1] if answer else done.returncode}")
