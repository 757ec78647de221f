"""What keeps other sites from the board: who may ask it, and what its pages may load.

The board listens on this machine only and asks nobody who they are. A page of another site that the same browser shows
must therefore not reach it under a name of its own (DNS rebinding), read it, or put it into a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class Guard:
    """An application behind check and headers."""

    def __init__(self, application: WSGIApplication, script_hashes: Sequence[str]) -> None:
        """`script_hashes`: of the scripts that stand in the page itself, as a policy lists them."""
        self._application = application
        policy = {
            "default-src": ["'none'"],
            "script-src": ["'self'", *script_hashes],
            # Plotly and Dash style what they draw as they draw it.
            "style-src": ["'self'", "'unsafe-inline'"],
            "img-src": ["'self'", "data:", "blob:"],
            "connect-src": ["'self'"],
            "base-uri": ["'none'"],
            "form-action": ["'none'"],
            "frame-ancestors": ["'none'"],
        }
        text = "; ".join(f"{what} {' '.join(sources)}" for what, sources in policy.items())
        self._headers = [("Content-Security-Policy", text), *_HEADERS]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, *self._headers], exc_info)

        if _name_of(environ.get("HTTP_HOST", "")) not in _NAMES:
            start("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"The board is at 127.0.0.1 or localhost, and nowhere else.\n"]
        return self._application(environ, start)


def _name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
