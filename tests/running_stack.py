"""`tickhouse up` as its user starts it, for the tests that need a whole stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TICKHOUSE = str(Path(sys.executable).with_name("tickhouse"))


@contextmanager
def stack(home: Path, output: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`tickhouse up` on free ports in the foreground of a session of its own, interrupted at the end."""
    command = [TICKHOUSE, "up", "--home", str(home), "--port", "0", *options]
    with output.open("ab") as log:
        up = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ, start_new_session=True)
    try:
        yield up
    finally:
        if up.poll() is None:
            up.send_signal(signal.SIGINT)
        up.wait(timeout=180)


def status(home: Path) -> dict[str, Any]:
    """What `tickhouse status` says, whether all is at work or not."""
    answer = subprocess.run([TICKHOUSE, "status", "--json", "--home", str(home)], capture_output=True, check=False)
    assert answer.returncode in (0, 3), answer.stderr
    content: dict[str, Any] = json.loads(answer.stdout)
    return content


def wait_until(
    condition: Callable[[dict[str, Any]], bool],
    home: Path,
    up: subprocess.Popen[bytes],
    output: Path,
    seconds: float,
) -> dict[str, Any]:
    """Wait until the condition holds for what `tickhouse status` says, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        assert up.poll() is None, output.read_text()
        seen = status(home)
        if condition(seen):
            return seen
        assert time.monotonic() < deadline, json.dumps(seen, indent=1) + output.read_text()
        time.sleep(2)
