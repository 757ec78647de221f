"""Connections whose reading is bounded as a whole: one deadline and one number of bytes for all of an answer.

The time-outs of `requests` hold for a single read, and the limits of `http.client` for a single line, so that an
answer which drips, or one of interim answers, headers or chunks without end, would go on for ever. Bounding the socket
bounds every layer above it alike: TLS, the answer of a proxy, status line, headers, body and trailers.
"""

from __future__ import annotations

import errno
import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import requests.adapters
import socks
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.contrib.socks import SOCKSConnection, SOCKSHTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

_CONNECTING = 0.6  # share of the time that may go by until there is a connection
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH)

_log = logging.getLogger(__name__)


class OversizedError(OSError):
    """The other side sends more than it may."""


class UnreachableError(ConnectionError):
    """There is no way to the other side, as without a network; what the system said of it is in the log."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} cannot be reached: is there a network?")


class Allowance:
    """What one request may still take in time and bytes. For one request at a time."""

    def __init__(self, seconds: float, size: int) -> None:
        """`seconds` are from the look-up of the name to the last byte of the answer.

        `size` is in bytes, of everything that is received: headers, chunk sizes and all.
        """
        self._seconds = seconds
        self._size = size
        self._left = size
        self._deadline = 0.0
        self._last_address: Any = None
        self.renew()

    def renew(self) -> None:
        """Begin another request."""
        self._deadline = _now() + self._seconds
        self._left = self._size

    @property
    def exhausted(self) -> bool:
        """Whether the bytes are used up."""
        return self._left <= 0

    def seconds_left(self) -> float:
        """Until the deadline. Raises TimeoutError when that has passed."""
        left = self._deadline - _now()
        if left <= 0:
            raise TimeoutError(f"there was no answer within {self._seconds:g} s")
        return left

    def read(self, opened: socket.socket, receive: Callable[[], int]) -> int:
        """Let a socket receive, if that may be, for as long as it may. Raises TimeoutError, OversizedError, OSError."""
        if self.exhausted:
            raise OversizedError(f"the answer is larger than {self._size} bytes")
        opened.settimeout(self.seconds_left())
        count = receive()
        self._left -= count
        return count

    def connect_through(self, proxy: Mapping[str, Any], host: str, port: int) -> socks.socksocket:
        """A connection through a SOCKS proxy, described as urllib3 does. Raises OSError.

        Its share of the time is that of any connection; what the proxy says counts as received.
        """
        until = _now() + self.seconds_left() * _CONNECTING
        proxy_port = proxy["proxy_port"] or 1080
        family, _, _, _, address = _look_up(proxy["proxy_host"], int(proxy_port), until - _now())[0]
        if not proxy["rdns"]:
            host = _look_up(host, port, until - _now())[0][4][0]
        opened = _socks_socket(self)(family)
        opened.set_proxy(
            proxy["socks_version"], address[0], address[1], proxy["rdns"], proxy["username"], proxy["password"]
        )
        opened.settimeout(max(0.001, until - _now()))
        try:
            opened.connect((host, port))
            opened.settimeout(self.seconds_left())  # for a TLS handshake
        except OSError:
            opened.close()
            raise
        return opened

    def connect(self, host: str, port: int, options: Iterable[tuple[Any, ...]]) -> socket.socket:
        """A connection to the first of the host's addresses that takes one. Raises OSError.

        Each address gets its share of the time that is left: one that swallows everything, as those of a broken IPv6
        do, leaves enough for the next. The address that was good last time comes first.
        """
        deadline = _now() + self.seconds_left() * _CONNECTING
        addresses = _look_up(host, port, deadline - _now())
        addresses.sort(key=lambda found: found[4] != self._last_address)
        errors: dict[str, OSError] = {}
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            opened = _plain_socket(self)(family, kind, protocol)
            try:
                opened.settimeout(max(0.001, (deadline - _now()) / (len(addresses) - number)))
                for option in options:
                    opened.setsockopt(*option)
                opened.connect(address)
                opened.settimeout(self.seconds_left())  # for a TLS handshake
            except OSError as error:
                opened.close()
                errors[str(address[0])] = error
                continue
            self._last_address = address
            return opened
        told = "; ".join(f"{address}: {error}" for address, error in errors.items())
        if all(error.errno in _NO_WAY for error in errors.values()):
            _log.info("%s cannot be reached: %s", host, told)
            raise UnreachableError(host)
        if any(isinstance(error, TimeoutError) for error in errors.values()):
            raise TimeoutError(told)
        raise ConnectionError(told)


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """An adapter with one connection, kept open, within an allowance; it tries nothing again by itself."""

    def __init__(self, allowance: Allowance) -> None:
        self._pools = _pool_classes(allowance)
        self._socks_pools = _socks_pool_classes(allowance)
        self._context = create_urllib3_context()
        self._context.sslsocket_class = _encrypted_socket(allowance)
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> urllib3.PoolManager:
        through_socks = proxy.lower().startswith("socks")
        contexts = {"ssl_context": self._context}
        if not through_socks:
            contexts["proxy_ssl_context"] = self._context
        manager: urllib3.PoolManager = super().proxy_manager_for(proxy, **contexts, **options)
        manager.pool_classes_by_scheme = self._socks_pools if through_socks else self._pools
        return manager


def _now() -> float:
    # Goes on while the machine is suspended: what was asked for before is not taken for an answer of now.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _look_up(host: str, port: int, seconds: float) -> list[Any]:
    """The addresses of a host. The system's own look-up cannot be told how long to take, so it gets a thread."""
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"the address of {host} was not found within {seconds:.1f} s") from None
    if isinstance(found, socket.gaierror):
        _log.info("the address of %s is not found: %s", host, found)
        raise UnreachableError(host)
    if isinstance(found, Exception):
        raise found
    return found


def _plain_socket(allowance: Allowance) -> type[socket.socket]:
    class Plain(socket.socket):
        def recv_into(self, *arguments: Any) -> int:
            return allowance.read(self, lambda: super(Plain, self).recv_into(*arguments))

    return Plain


def _socks_socket(allowance: Allowance) -> type[socks.socksocket]:
    class Socks(socks.socksocket):
        def recv_into(self, *arguments: Any) -> int:
            return allowance.read(self, lambda: super(Socks, self).recv_into(*arguments))

    return Socks


def _encrypted_socket(allowance: Allowance) -> type[ssl.SSLSocket]:
    class Encrypted(ssl.SSLSocket):
        def recv_into(self, *arguments: Any) -> int:
            return allowance.read(self, lambda: super(Encrypted, self).recv_into(*arguments))

    return Encrypted


def _pool_classes(allowance: Allowance) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return allowance.connect(self._dns_host, self.port, self.socket_options or ())

    class Encrypted(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return allowance.connect(self._dns_host, self.port or 443, self.socket_options or ())

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


def _socks_pool_classes(allowance: Allowance) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    class Plain(SOCKSConnection):
        def _new_conn(self) -> socks.socksocket:
            return allowance.connect_through(self._socks_options, self.host, self.port or 80)

    class Encrypted(SOCKSHTTPSConnection):
        def _new_conn(self) -> socks.socksocket:
            return allowance.connect_through(self._socks_options, self.host, self.port or 443)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}
