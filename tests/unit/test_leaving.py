"""A process ends with the code that was meant, after all that Python does at its end."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from tickhouse.leaving import leave

class Untidy:
    def __del__(self):
        print("taken apart")

untidy = Untidy()
pool = ThreadPoolExecutor(1)  # whose thread waits for more until it is told that there will be none
pool.submit(print, "worker").result()
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("written", end="")
leave(7)
"""


def test_threads_end_what_is_registered_is_called_and_what_is_written_arrives() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30)
    assert done.returncode == 7
    assert done.stdout.split("\n") == ["worker", "writtenthread", "registered", ""], "objects are not taken apart"
    assert done.stderr == ""


def test_a_closed_output_changes_nothing() -> None:
    script = "import os, sys; os.close(1); sys.stdout.write('x'); from tickhouse.leaving import leave; leave(3)"
    # Without the caller's environment: what is written waits until the end.
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, env={}).returncode == 3
