"""The local mongod, for real: loopback only, and nothing acknowledged is lost by a kill -9."""

from __future__ import annotations

import os
import signal
import socket
import struct
import zlib
from pathlib import Path

import bson
import psutil
import pytest
from pymongo import MongoClient

from orchestration.local import processes
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


def test_it_takes_no_compressed_message(mongo_uri: str) -> None:
    """The packaged server has CVE-2025-14847: a compressed message that overstates its length gets memory as answer."""
    with MongoClient[dict[str, object]](mongo_uri, compressors="zlib") as client:
        client.admin.command("ping")
        options = client.admin.command("getCmdLineOpts")["parsed"]["net"]
        assert options["compression"] == {"compressors": "disabled"}
        assert "compression" not in client.admin.command("hello", compression=["snappy", "zstd", "zlib"])
    question = bson.encode({"ping": 1, "$db": "admin"})
    content = b"\0\0\0\0" + b"\0" + question  # flags, kind of section
    op_message, op_compressed, zlib_id = 2013, 2012, 2
    for name, kind, body in (
        ("plain", op_message, content),
        ("compressed", op_compressed, struct.pack("<iib", op_message, len(content), zlib_id) + zlib.compress(content)),
    ):
        host, _, port = mongo_uri.removeprefix("mongodb://").partition("/")[0].partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, kind) + body)
            answer = connection.recv(65_536)
        assert (b"ok" in answer) is (name == "plain"), f"{name}: {answer!r}"


def test_one_that_ends_at_once_is_told(home: Path, tools: Path, mongo_uri: str) -> None:
    server = Mongod(home / "mongo", int(mongo_uri.split(":")[2].split("/")[0]))
    process = start(home, server, tools)
    with pytest.raises(NotReady, match="mongod has ended: its log says why"):
        wait_ready("mongodb://127.0.0.1:1/", lambda: processes.alive(process), 60)
    assert "already in use" in Path(process.log).read_text().lower()
