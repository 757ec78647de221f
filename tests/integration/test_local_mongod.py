"""The local mongod, for real: loopback only, and nothing acknowledged is lost by a kill -9."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient

from orchestration import processes
from orchestration.local.artifacts import mongod_binary
from orchestration.local.broker import NotReady
from orchestration.local.mongod import Mongod, wait_ready
from orchestration.local.ports import free_port

pytestmark = pytest.mark.integration


def start(home: Path, server: Mongod, tools: Path) -> processes.Process:
    return processes.start(home, "mongod", server.command(mongod_binary(tools, os.environ)), os.environ)


def test_acknowledged_documents_survive_a_kill(home: Path, tools: Path) -> None:
    server = Mongod(home / "mongo", free_port())
    process = start(home, server, tools)
    wait_ready(server.uri, lambda: processes.alive(process), 60)
    with MongoClient[dict[str, object]](server.uri) as client:
        client.test.documents.insert_many([{"_id": number} for number in range(1_000)])
        os.kill(process.pid, signal.SIGKILL)
    processes.stop(process)
    assert (home / "mongo" / "mongod.lock").read_text() != "", "a lock left behind is part of what is tested"
    process = start(home, server, tools)
    wait_ready(server.uri, lambda: processes.alive(process), 60)
    with MongoClient[dict[str, object]](server.uri) as client:
        assert client.test.documents.count_documents({}) == 1_000


def test_it_listens_on_loopback_only(home: Path, tools: Path) -> None:
    server = Mongod(home / "mongo", free_port())
    process = start(home, server, tools)
    wait_ready(server.uri, lambda: processes.alive(process), 60)
    listening = [c for c in psutil.Process(process.pid).net_connections("all") if c.status == psutil.CONN_LISTEN]
    assert [connection.laddr for connection in listening] == [("127.0.0.1", server.port)]


def test_one_that_ends_at_once_is_told(home: Path, tools: Path, mongo_uri: str) -> None:
    server = Mongod(home / "mongo", int(mongo_uri.split(":")[2].split("/")[0]))
    process = start(home, server, tools)
    with pytest.raises(NotReady, match="mongod has ended: its log says why"):
        wait_ready("mongodb://127.0.0.1:1/", lambda: processes.alive(process), 60)
    assert "already in use" in Path(process.log).read_text().lower()
