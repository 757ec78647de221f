"""A folder that a power cut can strike: what lies in it is on a `VolatileDisk`, mounted in a process of its own."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from orchestration.settings import PROJECT_ROOT
from tests.chaos.volatile_disk import Mode

_SECONDS = 60.0


def unavailable() -> str | None:
    """Why no such folder can be had here; None when it can."""
    if importlib.util.find_spec("pyfuse3") is None:
        return "pyfuse3 is not installed: `make fuse` does so where libfuse3 is to be had"
    return None if Path("/dev/fuse").exists() else "there is no /dev/fuse"


class PowerFolder:
    """`folder` while it is switched on. A cut ends that; switched on again, it has what has survived."""

    def __init__(self, folder: Path, mode: Mode, seed: int = 0) -> None:
        self.folder = folder
        self._store = folder.with_name(f"{folder.name}.store")
        self._mode = mode
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> PowerFolder:
        self.switch_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.switch_off()

    def switch_on(self) -> None:
        """Mount it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.chaos.power_filesystem", str(self._store), str(self.folder)]
        self._process = subprocess.Popen(
            [*command, self._mode, str(self._seed)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
        )
        self._seed += 1
        self._read("mounted")

    def cut(self) -> int:
        """The power cut; returns how many files and names have lost something.

        Processes that work in the folder get errors from now on, and must be killed before `switch_off`.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        return int(self._read("cut"))

    def switch_off(self) -> None:
        """Unmount it; without a cut before everything survives."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def _read(self, word: str) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(word):
            raise RuntimeError(f"the file system has ended instead of answering `{word}`: {line}")
        return line[len(word) :].strip()
