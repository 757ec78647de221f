"""A real HTTP server that answers as Binance's price ticker does, failures included.

    python -m producer.simulator --port N --seed S [--failure-rate R]

Port 0 takes any free port. The first line on standard output is `listening on http://127.0.0.1:PORT`.

Tests and curious people script what comes next: `POST /simulator/failures` with a JSON list of objects
`{"kind": …, "seconds": …, "times": …}` queues failures for the next requests for prices, `GET /simulator/requests`
tells what has been asked for. FAILURES lists the kinds.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from producer.walk import CATALOGUE, STEP_SECONDS, Walk

WEIGHT_LIMIT = 6_000
"""Weight that one address may use in a minute."""

_SYMBOL = re.compile(r"[A-Z0-9-_.]{1,20}")
_SCRIPT_BYTES = 1_000_000
_RECENT_REQUESTS = 10_000

_log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """One failure of the next request, or `times` requests. `seconds`: how long it bans, asks to wait, or takes."""

    kind: str
    seconds: float = 1.0
    times: int = 1


class Reply(NamedTuple):
    """An answer: status, further headers, body."""

    status: int
    headers: dict[str, str]
    body: bytes


def _json(status: int, document: Any, headers: dict[str, str] | None = None) -> Reply:
    # Without spaces, as Binance writes it.
    body = json.dumps(document, separators=(",", ":")).encode()
    return Reply(status, {"Content-Type": "application/json;charset=UTF-8", **(headers or {})}, body)


def _page(status: int, text: str) -> Reply:
    return Reply(status, {"Content-Type": "text/html"}, f"<html><body><h1>{text}</h1></body></html>".encode())


def _refused(status: int, seconds: float, until: float) -> Reply:
    message = (
        f"Way too much request weight used; IP banned until {until * 1_000:.0f}. "
        if status == 418
        else f"Too much request weight used; current limit is {WEIGHT_LIMIT} request weight per 1 MINUTE. "
    ) + "Please use WebSocket Streams for live updates to avoid bans."
    # Whole seconds, and never fewer than it takes.
    return _json(status, {"code": -1003, "msg": message}, {"Retry-After": str(max(0, -int(-seconds // 1)))})


# What a failure answers with, from its seconds and the good answer. Those of the connection itself are in the handler.
_REPLIES: dict[str, Callable[[float, Reply], Reply]] = {
    "400": lambda _seconds, _good: _json(400, {"code": -1121, "msg": "Invalid symbol."}),
    "403": lambda _seconds, _good: _page(403, "403 Forbidden"),
    "418": lambda seconds, _good: _refused(418, seconds, time.time() + seconds),
    "429": lambda seconds, _good: _refused(429, seconds, 0),
    "429-silent": lambda seconds, _good: _refused(429, seconds, 0)._replace(headers={}),
    "451": lambda _seconds, _good: _json(451, {"code": 0, "msg": "Service unavailable from a restricted location."}),
    "500": lambda _seconds, _good: _json(500, {"code": -1000, "msg": "An unknown error occurred."}),
    "502": lambda _seconds, _good: _page(502, "502 Bad Gateway"),
    "503": lambda _seconds, _good: _json(503, {"code": -1008, "msg": "Server is currently overloaded."}),
    "504": lambda _seconds, _good: _page(504, "504 Gateway Time-out"),
    "redirect": lambda _seconds, _good: Reply(302, {"Location": "/api/v3/ping"}, b""),
    "garbage": lambda _seconds, good: good._replace(body=b"\x00\xff" + good.body[: len(good.body) // 2]),
    "html": lambda _seconds, _good: _page(200, "Checking your browser"),
    "empty": lambda _seconds, good: good._replace(body=b""),
    "huge": lambda _seconds, good: good._replace(body=b'{"symbol":"' + b"A" * 3_000_000 + b'"}'),
    "bad-price": lambda _seconds, good: good._replace(body=re.sub(rb'"price":"[^"]*"', b'"price":"NaN"', good.body)),
    "other-symbol": lambda _seconds, _good: _json(200, {"symbol": "NOSUCH", "price": "1.00"}),
}
_ON_THE_WIRE = ("slow", "trickle", "trickle-headers", "truncated", "reset")
FAILURES = (*_REPLIES, *_ON_THE_WIRE)
"""The kinds of failure, by status where there is one."""
GOOD = "good"
"""What is scripted for an answer without failure in between."""
# What --failure-rate draws from: all that pass by themselves within seconds.
_AT_RANDOM = tuple(kind for kind in FAILURES if kind not in ("400", "418", "429-silent", "trickle-headers"))


class Exchange:
    """What the server knows: the prices, the weight used, what is scripted, and who is banned until when."""

    def __init__(self, seed: int, failure_rate: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._walks = {symbol: Walk(symbol, instrument, seed) for symbol, instrument in CATALOGUE.items()}
        self._began = time.monotonic()
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._failure_rate = failure_rate
        self._scripted: deque[Failure] = deque()
        self._withdrawn: tuple[str, ...] = ()
        self._left_out: tuple[str, ...] = ()
        self._refusing: tuple[float, str] = (0.0, "")
        self._weights: deque[tuple[float, int]] = deque()
        self._requests: deque[dict[str, Any]] = deque(maxlen=_RECENT_REQUESTS)
        self._count = 0
        self._disobeyed = 0

    def script(self, failures: list[Failure]) -> None:
        """Queue failures for the next requests. Raises ValueError for a kind that does not exist."""
        for failure in failures:
            if failure.kind not in (*FAILURES, GOOD) or failure.times < 1 or failure.seconds < 0:
                raise ValueError(f"{failure} is no failure; the kinds are {', '.join((*FAILURES, GOOD))}")
        with self._lock:
            for failure in failures:
                self._scripted.extend([failure] * failure.times)

    def withdraw(self, *symbols: str, silently: bool = False) -> None:
        """From now on these symbols, and only these, are not known; or, silently, left out of the answers."""
        with self._lock:
            self._withdrawn = () if silently else symbols
            self._left_out = symbols if silently else ()

    def requests(self) -> dict[str, Any]:
        """What has been asked: `count`, how many of them `during_ban`, `scripted` failures left, the `recent` ones."""
        with self._lock:
            return {
                "count": self._count,
                "during_ban": self._disobeyed,
                "scripted": len(self._scripted),
                "recent": list(self._requests),
            }

    def answer(self, query: dict[str, list[str]]) -> tuple[Reply, Failure | None]:
        """The answer to a request for prices, and the failure that was put in its place."""
        now = time.monotonic()
        with self._lock:
            good = self._prices(query, now)
            weight = self._weigh(now, 2 if "symbol" in query else 4)
            failure = self._next_failure(now, weight)
            self._count += 1
            kind = failure.kind if failure else None
            prices = good.body.decode() if failure is None and good.status == 200 else None
            self._requests.append({"monotonic": now, "query": query, "failure": kind, "prices": prices})
        reply = (
            good if failure is None or failure.kind not in _REPLIES else _REPLIES[failure.kind](failure.seconds, good)
        )
        return reply._replace(headers={**reply.headers, "X-MBX-USED-WEIGHT-1M": str(weight)}), failure

    def _next_failure(self, now: float, weight: int) -> Failure | None:
        until, kind = self._refusing
        if now < until:
            self._disobeyed += 1
            if kind == "429":  # going on in spite of a 429 is what bans are for
                until, kind = self._refusing = (now + max(2.0, until - now), "418")
            return Failure(kind, until - now)
        if self._scripted:
            failure = self._scripted.popleft()
            if failure.kind == GOOD:
                return None
        elif weight > WEIGHT_LIMIT:
            failure = Failure("429", 60 - now % 60)
        elif self._chance.random() < self._failure_rate:
            failure = Failure(self._chance.choice(_AT_RANDOM))
        else:
            return None
        if failure.kind in ("418", "429"):
            self._refusing = (now + failure.seconds, failure.kind)
        return failure

    def _weigh(self, now: float, weight: int) -> int:
        while self._weights and self._weights[0][0] < now - 60:
            self._weights.popleft()
        self._weights.append((now, weight))
        return sum(used for _, used in self._weights)

    def _prices(self, query: dict[str, list[str]], now: float) -> Reply:
        step = int((now - self._began) / STEP_SECONDS)
        if "symbol" in query and "symbols" in query:
            return _json(400, {"code": -1128, "msg": "Combination of optional parameters invalid."})
        symbols: Any = [symbol for symbol in CATALOGUE if symbol not in self._withdrawn]
        if "symbol" in query:
            symbols = query["symbol"][:1]
        elif "symbols" in query:
            try:
                symbols = json.loads(query["symbols"][0])
            except ValueError:
                symbols = None
            if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
                return _json(400, {"code": -1100, "msg": "Illegal characters found in parameter 'symbols'."})
        if not all(_SYMBOL.fullmatch(symbol) for symbol in symbols):
            return _json(400, {"code": -1100, "msg": "Illegal characters found in parameter 'symbol'."})
        if not all(symbol in self._walks and symbol not in self._withdrawn for symbol in symbols):
            return _json(400, {"code": -1121, "msg": "Invalid symbol."})
        prices = [
            {"symbol": symbol, "price": walk.price_at(step)}
            for symbol, walk in self._walks.items()
            if symbol in symbols and symbol not in self._left_out
        ]
        return _json(200, prices[0] if "symbol" in query and prices else prices)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept open
    timeout = 60
    disable_nagle_algorithm = True
    exchange: Exchange

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/api/v3/ping":
            self._send(_json(200, {}))
        elif parts.path == "/simulator/requests":
            self._send(_json(200, self.exchange.requests()))
        elif parts.path == "/api/v3/ticker/price":
            reply, failure = self.exchange.answer(parse_qs(parts.query, keep_blank_values=True))
            if failure is not None and failure.kind in _ON_THE_WIRE:
                self._misbehave(failure, reply)
            else:
                self._send(reply)
        else:
            self._send(_page(404, "404 Not found"))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/simulator/failures" or not length.isdigit() or int(length) > _SCRIPT_BYTES:
            self.close_connection = True
            self._send(_page(404, "404 Not found"))
            return
        try:
            self.exchange.script([Failure(**entry) for entry in json.loads(self.rfile.read(int(length)))])
        except (ValueError, TypeError) as error:
            self._send(_json(400, {"msg": str(error)}))
        else:
            self._send(_json(200, {}))

    def log_message(self, *_arguments: Any) -> None:
        """Ten lines a second help nobody; `GET /simulator/requests` has them."""

    def _send(self, reply: Reply, length: int | None = None) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body) if length is None else length))
        self.end_headers()
        self.wfile.write(reply.body)

    def _misbehave(self, failure: Failure, reply: Reply) -> None:
        if failure.kind == "slow":
            time.sleep(failure.seconds)
            self._send(reply)
            return
        self.close_connection = True
        if failure.kind == "truncated":
            self._send(reply._replace(body=reply.body[:-1]), length=len(reply.body))
        elif failure.kind == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            if failure.kind == "trickle":
                head += f"Content-Length: {len(reply.body)}\r\n\r\n".encode()
            self.wfile.write(head)
            rest = reply.body if failure.kind == "trickle" else b"X-Slow: " + b"z" * 1_000
            for byte in rest:
                self.wfile.write(bytes([byte]))
                time.sleep(failure.seconds)


class Simulator:
    """The server on 127.0.0.1, in threads of this process: start it, use `url` and `exchange`, stop it."""

    def __init__(self, port: int = 0, seed: int = 0, failure_rate: float = 0.0) -> None:
        """Take the port, 0 for any free one. Raises OSError when it is in use."""
        self.exchange = Exchange(seed, failure_rate)
        handler = type("Handler", (_Handler,), {"exchange": self.exchange})
        self._server = _Server(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="simulator", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client's open connection does not hold up the end

    def handle_error(self, _request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a client that has gone away is no fault of ours
            _log.error("while answering %s", client_address, exc_info=error)


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m producer.simulator", description="Answers as Binance's price ticker."
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes any free port")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same prices")
    parser.add_argument("--failure-rate", type=float, default=0.0, help="share of requests that fail at random, 0 to 1")
    arguments = parser.parse_args()
    if not 0 <= arguments.failure_rate <= 1:
        parser.error("--failure-rate is a share, from 0 to 1")
    # Before any thread begins, so that all of them leave these signals to sigwait.
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        simulator = Simulator(arguments.port, arguments.seed, arguments.failure_rate)
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"port {arguments.port} cannot be used: {error}; choose another with --port, or 0 for any\n")
        return 1
    simulator.start()
    sys.stdout.write(f"listening on {simulator.url}\n")
    sys.stdout.flush()
    signal.sigwait(signals)
    simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
