"""Ports of 127.0.0.1: which are free, which are taken."""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
# Below the range from which the kernel takes the ports of outgoing connections: a service that is started again finds
# its port free.
_FIRST, _LAST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a service could listen on that port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the services do: remains of closed ones
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Whether something accepts connections on that port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def http_answers(url: str, path: str, seconds: float) -> bool:
    """Whether a server at that address of this machine answers a request. No proxy is asked, whatever is set."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=seconds)
    try:
        connection.request("GET", path)
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def free_port(taken: Collection[int] = ()) -> int:
    """A port that nobody uses and that is not in `taken`, chosen at random so that stacks started at once rarely meet.

    Raises OSError.
    """
    for _ in range(1000):
        port = random.randrange(_FIRST, _LAST)  # noqa: S311 (no secret)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")
