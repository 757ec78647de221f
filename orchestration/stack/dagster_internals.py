"""Private interfaces of Dagster that the code server changes."""

from __future__ import annotations

import multiprocessing
from typing import Any

from dagster._core.storage.sql import ScriptDirectory  # type: ignore[attr-defined]
from dagster._grpc.server import DagsterApiServer

DEFINITIONS = "orchestration.definitions"
LOCATION = "tickhouse"
"""As the workspaces of the local stack and of the containers name the code location."""


def fork_runs() -> None:
    """Let runs be forks of one process that has imported the definitions.

    Dagster starts an interpreter for each and imports all anew, which takes longer than most runs of a running stack.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([DEFINITIONS])
    begin = DagsterApiServer.__init__

    def begin_with_forks(server: Any, *arguments: Any, **named: Any) -> None:
        begin(server, *arguments, **named)
        server._mp_ctx = forks

    DagsterApiServer.__init__ = begin_with_forks  # type: ignore[assignment, method-assign]


def keep_revisions() -> None:
    """Read the revisions of Dagster's storages once.

    For each look of a sensor Dagster opens its storages anew, and finds out from all scripts of their history which
    revision is the newest: most of what a look costs.
    """
    read = ScriptDirectory.from_config
    known: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Any) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]
