"""Failpoints: exact places in the running program at which a process can be made to die or to fall asleep.

The program knows nothing of them. They are put around its functions from outside, when a process starts with the folder
`injection` on its PYTHONPATH. A failpoint does something only while it is armed, by a file in the folder that the
environment names, and then once: whoever gets to rename the file is the one that is hit.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import wrapt

FOLDER_VARIABLE = "TICKHOUSE_CHAOS_FOLDER"
ADVERTISED_PORT_VARIABLE = "TICKHOUSE_CHAOS_ADVERTISED_PORT"
"""The port that the broker names to its clients: of a proxy that can be cut."""
BREAK_VARIABLE = "TICKHOUSE_CHAOS_BREAK"
"""`marker` takes away what makes a repeated micro-batch harmless, to see that it is missed."""

IN_PYTHON = {
    "before-transaction-commit": ("moving", "zscore", "trend"),
    "after-transaction-commit": ("moving", "zscore", "trend"),
    "before-commit-log": ("moving", "zscore", "trend"),
    "between-delta-tables": ("prices",),
    "after-delta-commit": ("prices", "moving", "zscore", "trend"),
    "between-mongodb-bulks": ("load",),
    "before-load-record": ("load",),
    "while-compacting": ("maintenance",),
    "after-compaction": ("maintenance",),
}
"""Failpoint to the targets that get there."""

_GLANCE_SECONDS = 0.002


def arm(folder: Path, failpoint: str, target: str, action: str) -> None:
    """Have the next process that gets there hit: `process` or `session` is killed, `zombie` sleeps on for itself."""
    unfinished = folder / f".{failpoint}@{target}"
    unfinished.write_text(action)
    unfinished.rename(folder / f"{failpoint}@{target}")


def disarm(folder: Path, failpoint: str, target: str) -> bool:
    """Take the failpoint back; returns whether nobody had got there."""
    try:
        (folder / f"{failpoint}@{target}").unlink()
    except FileNotFoundError:
        return False
    return True


def hit(folder: Path, failpoint: str, target: str) -> int | None:
    """The pid of the process that was hit; None as long as none was."""
    try:
        return int((folder / f"{failpoint}@{target}.hit").read_text())
    except (FileNotFoundError, ValueError):
        return None


def forget(folder: Path, failpoint: str, target: str) -> None:
    """Make ready for arming it again."""
    (folder / f"{failpoint}@{target}.hit").unlink(missing_ok=True)


def reach(failpoint: str, target: str) -> None:
    """Called at the place itself."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    armed = folder / f"{failpoint}@{target}"
    taken = folder / f".{failpoint}@{target}.{os.getpid()}"
    try:
        armed.rename(taken)
    except FileNotFoundError:
        return
    action = taken.read_text()
    taken.write_text(str(os.getpid()))
    taken.rename(folder / f"{failpoint}@{target}.hit")
    if action == "session":
        kill_session(os.getsid(0))
    elif action == "zombie":
        # Out of the session, so that it is not found and ended with the rest.
        os.setsid()
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def kill_session(session: int) -> None:
    """SIGKILL to every process of a session, the caller last if it is one of them."""
    own = os.getpid()
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.pid != own:
                process.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    if os.getsid(0) == session:
        os.kill(own, signal.SIGKILL)


def install() -> None:
    """Put the failpoints around the functions of modules that this process will import, if it imports them."""
    if FOLDER_VARIABLE not in os.environ:
        return
    for module, put in _MODULES.items():
        wrapt.register_post_import_hook(put, module)


class _Transactions(wrapt.ObjectProxy[Any]):
    """A transactional producer with a failpoint on either side of the commit."""

    def __init__(self, producer: Any, target: str) -> None:
        super().__init__(producer)
        self._self_target = target

    def commit_transaction(self, *arguments: Any) -> None:
        reach("before-transaction-commit", self._self_target)
        self.__wrapped__.commit_transaction(*arguments)
        reach("after-transaction-commit", self._self_target)


def _in_sinks(module: Any) -> None:
    from tickhouse.contract.topology import JOBS

    job_of = {spec.outputs[0]: name for name, spec in JOBS.items() if spec.outputs}

    def begin_session(wrapped: Callable[[], None], channel: Any, _arguments: Any, _named: Any) -> None:
        wrapped()
        channel._producer = _Transactions(channel._producer, job_of[channel._target.topics[0]])

    if os.environ.get(BREAK_VARIABLE) == "marker":
        wrapt.wrap_function_wrapper(module, "is_published", lambda *_: False)
    wrapt.wrap_function_wrapper(module, "_Channel._begin_session", begin_session)


def _in_run(module: Any) -> None:
    def publish_batch(wrapped: Callable[..., None], job: Any, arguments: Any, named: Any) -> None:
        wrapped(*arguments, **named)
        reach("before-commit-log", job._spec.name)

    wrapt.wrap_function_wrapper(module, "_Job._publish_batch", publish_batch)


def _in_archive(module: Any) -> None:
    from tickhouse.contract.topology import JOBS

    job_of = {table: name for name, spec in JOBS.items() for table in spec.tables}

    def append(wrapped: Callable[..., None], _instance: Any, arguments: Any, named: Any) -> None:
        table = arguments[0].table
        wrapped(*arguments, **named)
        if table == "prices":
            reach("between-delta-tables", "prices")
        reach("after-delta-commit", job_of[table])

    wrapt.wrap_function_wrapper(module, "append", append)


def _in_maintenance(module: Any) -> None:
    def compact(wrapped: Callable[..., bool], maintenance: Any, arguments: Any, named: Any) -> bool:
        table = Path(maintenance._lakehouse.table_uri(arguments[0]))
        known, done = set(table.rglob("*.parquet")), threading.Event()

        def watch() -> None:
            while not done.wait(_GLANCE_SECONDS):
                # Written, and not committed yet.
                if set(table.rglob("*.parquet")) - known:
                    reach("while-compacting", "maintenance")
                    return

        threading.Thread(target=watch, daemon=True).start()
        compacted = wrapped(*arguments, **named)
        done.set()
        reach("after-compaction", "maintenance")
        return compacted

    wrapt.wrap_function_wrapper(module, "Maintenance._compact", compact)


def _in_mongo_load(module: Any) -> None:
    def write(wrapped: Callable[..., None], _store: Any, arguments: Any, named: Any) -> None:
        wrapped(*arguments, **named)
        reach("between-mongodb-bulks", "load")

    def record(wrapped: Callable[..., Any], _store: Any, arguments: Any, named: Any) -> Any:
        reach("before-load-record", "load")
        return wrapped(*arguments, **named)

    wrapt.wrap_function_wrapper(module, "MongoStore.write", write)
    wrapt.wrap_function_wrapper(module, "MongoStore.record", record)


def _in_broker(module: Any) -> None:
    def write_properties(wrapped: Callable[..., None], broker: Any, arguments: Any, named: Any) -> None:
        wrapped(*arguments, **named)
        if not broker.directory.is_relative_to(Path(os.environ[FOLDER_VARIABLE]).parent):
            return  # not the stack's own
        own, proxy = f"//127.0.0.1:{broker.port}", f"//127.0.0.1:{os.environ[ADVERTISED_PORT_VARIABLE]}"
        lines = broker._properties.read_text().splitlines()
        advertised = [line.replace(own, proxy) if line.startswith("advertised.") else line for line in lines]
        broker._properties.write_text("\n".join(advertised) + "\n")

    if ADVERTISED_PORT_VARIABLE in os.environ:
        wrapt.wrap_function_wrapper(module, "Broker.write_properties", write_properties)


_MODULES: dict[str, Callable[[Any], None]] = {
    "spark_jobs.sinks.kafka": _in_sinks,
    "spark_jobs.run": _in_run,
    "spark_jobs.sinks.delta": _in_archive,
    "orchestration.serving.mongo": _in_mongo_load,
    "orchestration.lakehouse.maintenance": _in_maintenance,
    "orchestration.local.broker": _in_broker,
}
