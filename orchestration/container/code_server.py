"""`python -m orchestration.container.code_server PORT`: the main process of the container in which streams run.

A container that ends kills whatever runs in it. The streams are processes of their own that no signal to the container
reaches, so they are stopped here, once the code server can launch none again; they stay wanted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from orchestration.container.environment import container_environment
from orchestration.local.ports import LOOPBACK
from orchestration.settings import OrchestrationSettings, SettingsError
from orchestration.stack.code_server import end_orphaned_runs
from orchestration.supervision.streams import Streams

STOP_SECONDS = 15.0
"""How long the code server may take to stop; the streams' own grace (`streams.STOP_SECONDS`) comes after it."""
_LOOK_SECONDS = 0.5


def serve(command: Sequence[str], streams: Streams, environment: Mapping[str, str]) -> int:
    """Run `command` until it ends or SIGTERM or SIGINT comes; then stop all streams.

    Returns 0 when a signal asked for the end, else the exit code of `command`, at least 1.
    """
    asked_at: float | None = None
    with subprocess.Popen(command, env=environment) as server:

        def stop(_number: int, _frame: object) -> None:
            nonlocal asked_at
            asked_at = asked_at or time.monotonic()
            server.terminate()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        while server.poll() is None:
            if asked_at is not None and time.monotonic() - asked_at > STOP_SECONDS:
                server.kill()
            time.sleep(_LOOK_SECONDS)
    with ThreadPoolExecutor(len(streams.names)) as pool:
        list(pool.map(streams.end, streams.names))
    return 0 if asked_at is not None else server.returncode or 1


def main() -> int:
    """Serve the definitions of the home in the environment; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.container.code_server")
    parser.add_argument("port", help="to listen on")
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on: in a container, all it has")
    options = parser.parse_args()
    try:
        settings = OrchestrationSettings.read()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # Runs are children of the code server: those of an earlier container went with it, and Dagster was not told.
    with dg.DagsterInstance.get() as instance:
        end_orphaned_runs(instance)
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--host", options.host, "--port", options.port]
    command += ["--module-name", "orchestration.definitions", "--location-name", "tickhouse"]
    variables = container_environment(settings, os.environ)
    return serve(command, Streams(settings), variables)


if __name__ == "__main__":
    sys.exit(main())
