"""A wall clock that a test sets, for processes that it starts: Python, Java, whatever goes by glibc's clock.

The library is `fake_clock.c`, compiled when a test asks for it.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_suffix(".c")
_OFFSET = struct.Struct("=q")


class FakeClock:
    """The clock of the processes that have been given `environment`; each sees a change at once."""

    def __init__(self, folder: Path) -> None:
        """Build it in a folder of the test's. Skips the test where there is no compiler."""
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no gcc to build the clock with (Debian: gcc, libc6-dev)")
        library, file = folder / "fake_clock.so", folder / "fake_clock.offset"
        file.write_bytes(_OFFSET.pack(0))
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
        subprocess.run([compiler, *flags, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
        with file.open("r+b") as opened:
            self._offset = mmap.mmap(opened.fileno(), _OFFSET.size)
        self.environment = {"LD_PRELOAD": str(library), "FAKE_CLOCK_FILE": str(file)}

    def set(self, seconds: float) -> None:
        """Let the clock differ from the machine's by so much from now on; less than 0 is behind."""
        self._offset[:] = _OFFSET.pack(round(seconds * 1e9))
