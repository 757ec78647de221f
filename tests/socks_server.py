"""A small SOCKS 5 server (RFC 1928, RFC 1929): whatever name it is asked for, it leads to one port of this machine."""

from __future__ import annotations

import select
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class SocksServer:
    """A running server. `credentials` are asked for when given; `reply` is what it answers, 0 for a connection."""

    port: int = 0
    credentials: tuple[bytes, bytes] | None = None
    reply: int = 0
    asked_for: list[tuple[str, int]] = field(default_factory=list)
    """The destinations, as they were named."""


@contextmanager
def socks_server(
    leads_to: int, credentials: tuple[bytes, bytes] | None = None, reply: int = 0
) -> Iterator[SocksServer]:
    """Run one on a free port of 127.0.0.1; connections end at the port `leads_to`."""
    told = SocksServer(credentials=credentials, reply=reply)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            _, count = self.rfile.read(2)
            offered = self.rfile.read(count)
            method = 2 if told.credentials else 0
            self.wfile.write(bytes([5, method if method in offered else 0xFF]))
            if method not in offered:
                return
            if told.credentials:
                self.rfile.read(1)
                shown = tuple(self.rfile.read(self.rfile.read(1)[0]) for _ in range(2))
                self.wfile.write(bytes([1, shown != told.credentials]))
                if shown != told.credentials:
                    return
            kind = self.rfile.read(4)[3]
            host = (
                socket.inet_ntoa(self.rfile.read(4))
                if kind == 1
                else self.rfile.read(self.rfile.read(1)[0]).decode("idna")
            )
            (port,) = struct.unpack(">H", self.rfile.read(2))
            told.asked_for.append((host, port))
            self.wfile.write(bytes([5, told.reply, 0, 1, 0, 0, 0, 0, 0, 0]))
            if told.reply == 0:
                with socket.create_connection(("127.0.0.1", leads_to)) as other:
                    _relay(self.connection, other)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield told
        finally:
            server.shutdown()


def _relay(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [])[0]:
            received = ready.recv(65_536)
            if not received:
                return
            (other if ready is one else one).sendall(received)
