"""A MongoDB server on this machine, for the local stack and the tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from orchestration.local.broker import NotReady
from tickhouse.files import force_way_to


@dataclass(frozen=True)
class Mongod:
    """A server that keeps its files in `directory` and listens on a port of 127.0.0.1."""

    directory: Path
    port: int

    @property
    def uri(self) -> str:
        """Its address for clients. Writes wait for the journal: without, a crash loses acknowledged documents."""
        return f"mongodb://127.0.0.1:{self.port}/?journal=true"

    def command(self, binary: Path) -> list[str]:
        """The command that runs it in the foreground; SIGTERM stops it cleanly. Creates its folder."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # It forces its files to disk, and their names, but not that of its folder.
        force_way_to(self.directory)
        command = [str(binary), "--dbpath", str(self.directory), "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.5", "--networkMessageCompressors", "disabled"]
        return [*command, "--setParameter", "diagnosticDataCollectionEnabled=false"]


def wait_ready(uri: str, alive: Callable[[], bool], timeout_seconds: float) -> None:
    """Wait until the server answers. Raises NotReady when it has ended or does not answer in time."""
    deadline = time.monotonic() + timeout_seconds
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(uri, serverSelectionTimeoutMS=500)
    with client:
        while True:
            try:
                client.admin.command("ping")
                return
            except PyMongoError as error:
                if not alive():
                    raise NotReady("mongod has ended: its log says why") from error
                if time.monotonic() > deadline:
                    raise NotReady(
                        f"mongod did not answer within {timeout_seconds:.0f} s: see its log for what keeps it"
                    ) from error
                time.sleep(0.1)
