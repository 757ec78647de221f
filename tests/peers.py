"""The other end of a connection, made to misbehave in any way: a server on loopback that answers with a function."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

Behaviour = Callable[[socket.socket, bytes], None]
"""What is done on a connection when a request has come in: gets the connection and the request's head."""


class Peer:
    """Accepts connections and, for each request on them, behaves as it is told to until it has been stopped."""

    def __init__(
        self, behave: Behaviour, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[bytes] = []
        """The heads of all requests."""
        self.connections = 0
        self._behave = behave
        self._tls = tls
        self._listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Accept no more; ends `_accept` as well."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        finally:
            self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with connection:
                while head := _read_head(connection):
                    self.requests.append(head)
                    self._behave(connection, head)
        except OSError:
            plain.close()  # the client has had enough, which is what most tests are about


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(65_536)
        if not part:
            return b""
        head += part
    return head
