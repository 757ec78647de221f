"""Keeps the local services running: starts them, and starts again what has ended by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestration.local import processes
from orchestration.local.broker import NotReady
from orchestration.stack.services import Service
from orchestration.supervision.restart_policy import DEFAULT_POLICY, History, Policy, decide

WRONG_SETTINGS = 2
"""The exit code of a service that no restart can help."""


class ServiceSupervisor:
    """The services of one home.

    `environment` gives that of each; `say` is told what ends and what is done about it.
    """

    def __init__(
        self,
        home: Path,
        environment: Callable[[Service], Mapping[str, str]],
        say: Callable[[str], None],
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        self._home = home
        self._environment = environment
        self._say = say
        self._policy = policy
        self._services: dict[str, Service] = {}
        self._histories: dict[str, History] = {}

    def launch(self, service: Service) -> None:
        """Start a service, and keep it from now on. Raises ProcessError."""
        processes.start(self._home, service.name, service.command, self._environment(service))
        self._services[service.name] = service

    def alive(self, name: str) -> bool:
        """Whether the service runs."""
        return self._running_seconds(name) is not None

    def require(self, name: str) -> None:
        """Raises NotReady, saying how it ended, when the service does not run."""
        if not self.alive(name):
            ended = self._last_error(name) or "it ended"
            raise NotReady(f"{name} has not started: {ended} (see {self._log(name)})")

    def look(self) -> None:
        """Look at each service once, and start what is down and due. Raises ProcessError for a damaged record."""
        for service in self._services.values():
            self._keep(service)

    def _keep(self, service: Service) -> None:
        name = service.name
        running_seconds = self._running_seconds(name)
        history = self._histories.get(name, History())
        if running_seconds is None and history.given_up is None:
            if service.finite and self._has_ended(name):
                return
            if self._exit_code(name) == WRONG_SETTINGS:
                reason = self._last_error(name) or "its settings are wrong"
                self._histories[name] = History(given_up=reason)
                self._say(f"{name} is left stopped: {reason} (see {self._log(name)})")
                return
        missing = [need for need in service.needs if not self.alive(need)]
        decision = decide(
            wanted=True,
            running_seconds=running_seconds,
            history=history,
            now=time.time(),
            last_error=self._last_error(name),
            blocked_by=f"{missing[0]} is down" if missing else None,
            policy=self._policy,
        )
        self._histories[name] = decision.history
        if decision.action == "start":
            ended = self._how_it_ended(name) or "by itself"
            self._say(f"{name} has ended {ended}; starting it again (see {self._log(name)})")
            try:
                processes.start(self._home, name, service.command, self._environment(service))
            except processes.ProcessError as error:
                # An attempt like any other: the next comes after a pause.
                self._say(f"{error}")
        elif decision.action == "give up":
            self._say(f"{name} is given up, {decision.reason}: see {self._log(name)}, mend the cause and start again")

    def _running_seconds(self, name: str) -> float | None:
        process = processes.recorded(self._home, name)
        if process is None or not processes.alive(process):
            return None
        return max(0.0, time.time() - process.create_time)

    def _has_ended(self, name: str) -> bool:
        """Whether its last process has done all there was to do."""
        heartbeat = processes.read_heartbeat(self._home, name) or {}
        process = processes.recorded(self._home, name)
        return process is not None and heartbeat.get("pid") == process.pid and heartbeat.get("state") == "ended"

    def _exit_code(self, name: str) -> int | None:
        process = processes.recorded(self._home, name)
        return processes.exit_code(process) if process else None

    def _last_error(self, name: str) -> str | None:
        heartbeat = processes.read_heartbeat(self._home, name) or {}
        process = processes.recorded(self._home, name)
        if process is not None and heartbeat.get("pid") == process.pid and heartbeat.get("error"):
            return str(heartbeat["error"])
        ended = self._how_it_ended(name)
        return f"it ended {ended}" if ended is not None else None

    def _how_it_ended(self, name: str) -> str | None:
        process = processes.recorded(self._home, name)
        return processes.how_it_ended(process) if process else None

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"
