"""The environment of a container's main process: an engine may have added proxies, and more, to the one it was
given.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestration.settings import OrchestrationSettings
from tickhouse import environment


def container_environment(settings: OrchestrationSettings, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container's program: an engine may add proxies to the one that the container has."""
    scratch = environment.scratch_folder(settings.home)
    variables = environment.child_environment(
        given, scratch, environment.find_account(given, scratch), ("proxies", "cloud")
    )
    return variables | {name: given[name] for name in ("DAGSTER_HOME", "PYTHONPATH") if name in given}
