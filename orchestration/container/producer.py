"""`python -m orchestration.container.producer`: the main process of the producer's container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from orchestration.container.environment import container_environment
from orchestration.settings import OrchestrationSettings, SettingsError
from producer.simulator import Simulator
from tickhouse.environment import PREFIX

_PRODUCER = (sys.executable, "-m", "producer")


def main() -> int:
    """Become the producer, or run it beside a simulated exchange on the container's loopback; returns the exit code."""
    try:
        settings = OrchestrationSettings.read(of_running_stack=False)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if settings.source == "auto":
        sys.stderr.write(
            f"{PREFIX}SOURCE=auto is resolved by `tickhouse up` only: set it to binance, simulator or replay:FILE\n"
        )
        return 2
    variables = container_environment(settings, os.environ)
    if settings.source != "simulator":
        os.execve(_PRODUCER[0], _PRODUCER, variables)  # noqa: S606
    simulator = Simulator()
    simulator.start()
    variables |= {f"{PREFIX}SOURCE": "binance", f"{PREFIX}BINANCE_URL": simulator.url}
    with subprocess.Popen(_PRODUCER, env=variables) as child:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: child.terminate())
        code = child.wait()
    simulator.stop()
    return code


if __name__ == "__main__":
    sys.exit(main())
