"""One request to the exchange for the prices of all symbols, bounded in time and size."""

from __future__ import annotations

import http.cookiejar
import ipaddress
import json
import os
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import requests.utils
import urllib3

from producer.exchanges.binance_answers import Answer, Refusal, plain_text
from producer.http import Allowance, BoundedAdapter, UnreachableError

_BASE_BYTES = 65_536
_BYTES_PER_SYMBOL = 256
_CHUNK = 16_384
_SHOWN = 300


class Received(NamedTuple):
    """An answer and the moment at which the last byte of it was there, in nanoseconds since the epoch."""

    answer: Answer
    wall_ns: int


class PriceClient:
    """Asks one address for the prices of the same symbols, over one connection that is kept open."""

    def __init__(self, base_url: str, symbols: Sequence[str], answer_seconds: float) -> None:
        self._url = f"{base_url}/api/v3/ticker/price"
        # Binance takes `symbol` for one and `symbols`, a JSON list without spaces, for several.
        several = json.dumps(list(symbols), separators=(",", ":"))
        self._parameters = {"symbol": symbols[0]} if len(symbols) == 1 else {"symbols": several}
        self._seconds = answer_seconds
        self._allowance = Allowance(answer_seconds, _BASE_BYTES + _BYTES_PER_SYMBOL * len(symbols))
        self._session = _Session()
        # Of the environment, proxies and certificates count, and nothing else: no passwords from a .netrc go out.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        if not _is_loopback(urlsplit(base_url).hostname or ""):
            # A proxy for the outside world is none of loopback's business.
            self._session.proxies.update(requests.utils.get_environ_proxies(self._url))
        # Nothing that an exchange wants remembered is.
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        # Not compressed, and never decompressed: the limit on the size is then a limit on what is read.
        self._session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, BoundedAdapter(self._allowance))

    def ask(self) -> Received | Refusal:
        """Ask once. Never raises for what the network or the other side does; takes about `answer_seconds` at most."""
        self._allowance.renew()
        try:
            with self._session.get(
                self._url,
                params=self._parameters,
                timeout=self._seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                chunks: list[bytes] = []
                while chunk := response.raw.read(_CHUNK, decode_content=False):
                    chunks.append(chunk)
                wall_ns = time.time_ns()
                # A process that was stopped meanwhile has got an answer of then, not of now.
                self._allowance.seconds_left()
                headers = {name.lower(): text for name, text in response.headers.items()}
                return Received(Answer(response.status_code, headers, b"".join(chunks)), wall_ns)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._session.close()
            cause = _innermost(error)
            if self._allowance.exhausted:
                kind = "oversized"
            elif isinstance(cause, TimeoutError) or isinstance(error, requests.Timeout):
                kind = "timeout"
            else:
                kind = "connection"
            told = f"{cause}" if isinstance(cause, UnreachableError) else f"{type(cause).__name__}: {cause}"
            return Refusal(kind, plain_text(told, _SHOWN))

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


class _Session(requests.Session):
    def get_redirect_target(self, _response: requests.Response) -> None:
        """A redirect is an answer like any other.

        Even when redirects are not followed, `requests` looks up where they lead to, and for that reads and
        decompresses all of their body.
        """


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _innermost(error: BaseException) -> BaseException:
    """The innermost cause: what is wrapped around it says nothing more."""
    while True:
        following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if following is None:
            return error
        error = following
