"""One request to the exchange for the prices of all symbols, bounded in time and size.

Belongs here: HTTP. Does not belong here: what an answer means (`answers`), when to ask (`schedule`, `sources`).
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from producer.answers import Answer, Refusal

CONNECT_SECONDS = 3.05
READ_SECONDS = 3.0
TOTAL_SECONDS = 5.0
_BASE_BYTES = 65_536
_BYTES_PER_SYMBOL = 256
_CHUNK = 16_384


class Received(NamedTuple):
    """An answer and the moment at which the last byte of it was there, in nanoseconds since the epoch."""

    answer: Answer
    wall_ns: int


class PriceClient:
    """Asks one address for the prices of the same symbols, over one connection that is kept open."""

    def __init__(self, base_url: str, symbols: Sequence[str]) -> None:
        self._url = f"{base_url}/api/v3/ticker/price"
        # Binance takes `symbol` for one and `symbols`, a JSON list without spaces, for several.
        several = json.dumps(list(symbols), separators=(",", ":"))
        self._parameters = {"symbol": symbols[0]} if len(symbols) == 1 else {"symbols": several}
        self._limit = _BASE_BYTES + _BYTES_PER_SYMBOL * len(symbols)
        self._connections = _Connections()
        self._session = requests.Session()
        # A proxy for the outside world is none of loopback's business.
        self._session.trust_env = not _is_loopback(urlsplit(base_url).hostname or "")
        # Not compressed: the limit on the size is then a limit on what is read.
        self._session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._connections))

    def ask(self) -> Received | Refusal:
        """Ask once. Never raises for what the network or the other side does; takes at most about TOTAL_SECONDS."""
        deadline = time.monotonic() + TOTAL_SECONDS
        cut_off = threading.Timer(TOTAL_SECONDS, self._connections.cut_off)
        cut_off.daemon = True
        cut_off.start()
        try:
            with self._session.get(
                self._url,
                params=self._parameters,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._read(response.raw)
                wall_ns = time.time_ns()
                if time.monotonic() >= deadline:  # cut off: where no length was announced, that looks like the end
                    raise TimeoutError(f"the answer took longer than {TOTAL_SECONDS:.0f} s")
                if body is None:
                    return Refusal("oversized", f"the answer is larger than {self._limit} bytes")
                headers = {name.lower(): text for name, text in response.headers.items()}
                return Received(Answer(response.status_code, headers, body), wall_ns)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._connections.forget()
            self._session.close()
            slow = time.monotonic() >= deadline or isinstance(
                error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
            )
            return Refusal("timeout" if slow else "connection", _plain(error))
        finally:
            cut_off.cancel()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _read(self, raw: Any) -> bytes | None:
        """The whole body, or None when it is larger than the limit."""
        chunks: list[bytes] = []
        size = 0
        while chunk := raw.read(_CHUNK, decode_content=False):
            size += len(chunk)
            if size > self._limit:
                return None
            chunks.append(chunk)
        return b"".join(chunks)


class _Connections:
    """The open sockets of a session, so that a request which only trickles can be ended from outside.

    The time-outs of `requests` are per read: one byte every second would keep a request going for ever.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def add(self, opened: socket.socket) -> None:
        self._sockets = [*(known for known in self._sockets if known.fileno() >= 0), opened]

    def forget(self) -> None:
        self._sockets = []

    def cut_off(self) -> None:
        for opened in self._sockets:
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed in the meantime: there is nothing to end


class _Adapter(requests.adapters.HTTPAdapter):
    """An adapter that reports each socket it opens and retries nothing by itself."""

    def __init__(self, connections: _Connections) -> None:
        self._connections = connections
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        connections = self._connections

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                connections.add(self.sock)

        class Encrypted(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                connections.add(self.sock)

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class EncryptedPool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Encrypted

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _plain(error: Exception) -> str:
    """The innermost cause: what is wrapped around it says nothing more."""
    inner: BaseException = error
    while (following := inner.__cause__ or inner.__context__) is not None:
        inner = following
    return f"{type(inner).__name__}: {inner}"[:300]
