"""The HTTP client against everything that a broken, slow or hostile other side can do: bounded in time and memory."""

from __future__ import annotations

import contextlib
import datetime
import errno
import gzip
import logging
import random
import socket
import ssl
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from orchestration.local.ports import free_port
from producer.exchanges.binance_answers import Prices, Refusal, read_answer
from producer.exchanges.binance_client import PriceClient
from tests.peers import Behaviour, Peer
from tests.socks_server import socks_server

SECONDS = 0.7
LEEWAY = 0.6  # a busy machine
MEMORY = 2_000_000
BODY = b'{"symbol":"BTCUSDT","price":"64000.10"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GOOD = OK + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY

PeerMaker = Callable[..., Peer]


@pytest.fixture
def peer() -> Iterator[PeerMaker]:
    peers: list[Peer] = []

    def make(behave: Behaviour, **options: Any) -> Peer:
        peers.append(Peer(behave, **options))
        return peers[-1]

    yield make
    for made in peers:
        made.stop()


def ask(client: PriceClient, memory: int = MEMORY) -> Prices | Refusal:
    """Ask, and make sure that neither time nor memory go beyond what they may."""
    tracemalloc.start()
    try:
        began = time.monotonic()
        received = client.ask()
        assert time.monotonic() - began < SECONDS + LEEWAY
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
    outcome = (
        received
        if isinstance(received, Refusal)
        else read_answer(received.answer, ("BTCUSDT",), received.wall_ns / 1e9)
    )
    assert isinstance(outcome, Prices | Refusal)
    return outcome


def ask_once(url: str) -> Prices | Refusal:
    client = PriceClient(url, ("BTCUSDT",), SECONDS)
    try:
        return ask(client)
    finally:
        client.close()


def refusal(url: str) -> str:
    outcome = ask_once(url)
    assert isinstance(outcome, Refusal)
    assert len(outcome.reason) <= 400
    assert outcome.reason.isprintable()
    return outcome.kind


def answer(*parts: bytes) -> Behaviour:
    def behave(connection: socket.socket, _head: bytes) -> None:
        for part in parts:
            connection.sendall(part)

    return behave


def last_answer(*parts: bytes) -> Behaviour:
    def behave(connection: socket.socket, head: bytes) -> None:
        answer(*parts)(connection, head)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


def for_ever(start: bytes, again: bytes, pause: float = 0.0) -> Behaviour:
    def behave(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(again)
            time.sleep(pause)

    return behave


def reset(connection: socket.socket, _head: bytes) -> None:
    connection.sendall(GOOD[:-5])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


BIG = b"x" * 65_536
BOMB = gzip.compress(b"\0" * 30_000_000)  # fits the limit as it is, and would be 30 MB
ZIPPED = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
RUBBISH = b"Content-Encoding: deflate\r\nContent-Length: 4\r\n\r\n\x00\xff\x00\xff"
LINE_OR_SIZE = "connection or oversized"  # a line and the whole may be equally long
NO_END = {
    "a body that drips": (for_ever(OK + b"Content-Length: 1000000\r\n\r\n", b" ", 0.05), "timeout"),
    "a body that drips until the connection ends": (for_ever(OK + b"\r\n", b" ", 0.05), "timeout"),
    "chunks that drip": (for_ever(CHUNKED, b"1\r\n \r\n", 0.05), "timeout"),
    "headers that drip": (for_ever(OK, b"X: y\r\n", 0.05), "timeout"),
    "a header that drips": (for_ever(OK + b"X: ", b"y", 0.05), "timeout"),
    "a status that drips": (for_ever(b"HTTP/1.1 200 ", b"O", 0.05), "timeout"),
    "interim answers that drip": (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), "timeout"),
    "nothing": (answer(), "timeout"),
    "nothing after the headers": (answer(OK + b"Content-Length: 1000000000000000\r\n\r\n"), "timeout"),
    "2 MB": (answer(OK + b"Content-Length: 2000000\r\n\r\n", BIG * 31), "oversized"),
    "2 GB": (for_ever(OK + b"Content-Length: 2000000000\r\n\r\n", BIG), "oversized"),
    "a body without end": (for_ever(OK + b"\r\n", BIG), "oversized"),
    "chunks without end": (for_ever(CHUNKED, b"10000\r\n" + BIG + b"\r\n"), "oversized"),
    "a chunk without end": (for_ever(CHUNKED + b"FFFFFFFFFFFF\r\n", BIG), "oversized"),
    "small chunks without end": (for_ever(CHUNKED, (b"10\r\n" + b" " * 16 + b"\r\n") * 400), "oversized"),
    "trailers without end": (for_ever(CHUNKED + b"0\r\n", b"X: y\r\n" * 1_000), "oversized"),
    "interim answers without end": (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "oversized"),
    "headers without end": (for_ever(OK, b"X: y\r\n" * 1_000), "connection"),
    "a header without end": (for_ever(OK + b"X: ", BIG), LINE_OR_SIZE),
    "a status without end": (for_ever(b"HTTP/1.1 200 ", BIG), LINE_OR_SIZE),
    "a chunk size without end": (for_ever(CHUNKED, b"0" * 65_536), LINE_OR_SIZE),
    "zipped zeros": (answer(OK + ZIPPED), "garbage"),
    "zipped zeros after a redirect": (answer(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n" + ZIPPED), "redirect"),
    "a redirect without end": (for_ever(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", BIG), "oversized"),
    "a refusal without end": (for_ever(b"HTTP/1.1 503 Busy\r\n\r\n", BIG), "oversized"),
}
BROKEN = {
    "unzippable": (answer(OK + RUBBISH), "garbage"),
    "no chunk": (answer(CHUNKED + b"zzz\r\n"), "connection"),
    "no HTTP": (last_answer(b"220 mail.example ESMTP\x1b[2J\r\n\r\n"), "connection"),
    "no status": (last_answer(b"HTTP/1.1 abc\r\n\r\n"), "connection"),
    "closed at once": (last_answer(), "connection"),
    "reset in the body": (reset, "connection"),
    "a length that is too large": (last_answer(OK + b"Content-Length: 999\r\n\r\n" + BODY), "connection"),
    "a length that is too small": (answer(OK + b"Content-Length: 9\r\n\r\n" + BODY), "garbage"),
    "a chunked body that ends early": (last_answer(CHUNKED + b"27\r\n" + BODY), "connection"),
    "a switch of protocols": (answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "101"),
}


@pytest.mark.parametrize("name", NO_END)
def test_what_does_not_end_is_ended(peer: PeerMaker, name: str) -> None:
    behave, kind = NO_END[name]
    assert refusal(peer(behave).url) in kind.split(" or ")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_apart_and_the_next_connection_is_good(peer: PeerMaker, name: str) -> None:
    behave, kind = BROKEN[name]
    answers = iter([behave])
    server = peer(lambda connection, head: next(answers, answer(GOOD))(connection, head))
    client = PriceClient(server.url, ("BTCUSDT",), SECONDS)
    outcome = ask(client)
    assert isinstance(outcome, Refusal)
    assert (outcome.kind, outcome.reason.isprintable()) == (kind, True)
    assert ask(client) == Prices({"BTCUSDT": "64000.10"}, {})
    assert len(server.requests) == 2
    client.close()


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.1 200\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + BODY,
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(90)) + b"\r\n" + BODY,
        CHUNKED + b"27\r\n" + BODY + b"\r\n0\r\n\r\n",
        GOOD,  # and the connection, which was to be kept open, is closed
    ],
)
def test_unusual_and_good(peer: PeerMaker, whole: bytes) -> None:
    client = PriceClient(peer(last_answer(whole)).url, ("BTCUSDT",), SECONDS)
    for _ in range(3):
        assert ask(client) == Prices({"BTCUSDT": "64000.10"}, {})
        time.sleep(0.02)  # until the end of the connection has come through
    client.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["itself", "elsewhere", "file:///etc/hostname", "//", "http://[", "\x01", ""])
def test_no_redirect_is_followed(peer: PeerMaker, status: int, target: str) -> None:
    elsewhere = peer(answer(GOOD))
    location = {"itself": "/api/v3/ticker/price?symbol=BTCUSDT", "elsewhere": elsewhere.url + "/"}.get(target, target)
    head = b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, location.encode())
    server = peer(answer(head))
    assert refusal(server.url) == "redirect"
    assert (len(server.requests), elsewhere.connections) == (1, 0)


def test_nothing_private_goes_out_and_nothing_is_remembered(
    peer: PeerMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password planted\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cookies = b"".join(b"Set-Cookie: c%d=%s\r\n" % (number, b"v" * 300) for number in range(50))
    server = peer(answer(GOOD.replace(b"\r\n\r\n", b"\r\n" + cookies + b"\r\n")))
    client = PriceClient(server.url, ("BTCUSDT",), SECONDS)
    for _ in range(3):
        assert isinstance(ask(client), Prices)
    client.close()
    assert server.connections == 1
    assert len(set(server.requests)) == 1
    assert not any(word in server.requests[0].lower() for word in (b"authorization", b"cookie", b"planted"))


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.mark.usefixtures("trusted")
def test_a_private_authority_counts_when_the_environment_names_it(peer: PeerMaker, authority: trustme.CA) -> None:
    server = peer(answer(GOOD), tls=server_context(authority.issue_cert("127.0.0.1")))
    client = PriceClient(server.url, ("BTCUSDT",), SECONDS)
    # The certificates are read with the first connection.
    assert [type(ask(client, memory=20_000_000)) for _ in range(3)] == [Prices] * 3
    assert server.connections == 1
    client.close()


@pytest.mark.usefixtures("trusted")
def test_through_a_socks_proxy_the_exchange_proves_itself_and_is_bounded(
    peer: PeerMaker, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    tls = server_context(authority.issue_cert("exchange.test"))
    for behave, outcome in ((answer(GOOD), Prices), (for_ever(OK, b"X: y\r\n", 0.05), "timeout")):
        server = peer(behave, tls=tls)
        with socks_server(urlsplit(server.url).port or 0) as proxy:
            monkeypatch.setenv("all_proxy", f"socks5h://127.0.0.1:{proxy.port}")
            got = ask(PriceClient("https://exchange.test", ("BTCUSDT",), SECONDS))
            assert (got.kind if isinstance(got, Refusal) else type(got)) == outcome
            impostor = ask(PriceClient("https://another.test", ("BTCUSDT",), SECONDS))
            assert isinstance(impostor, Refusal)
            assert impostor.kind == "connection"


def old_protocol(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = server_context(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
UNTRUSTED: dict[str, Callable[[trustme.CA], ssl.SSLContext]] = {
    "another authority": lambda _authority: server_context(trustme.CA().issue_cert("127.0.0.1")),
    "another host": lambda authority: server_context(authority.issue_cert("elsewhere.test")),
    "expired": lambda authority: server_context(authority.issue_cert("127.0.0.1", not_after=YESTERDAY)),
    "an old protocol": lambda authority: old_protocol(authority.issue_cert("127.0.0.1")),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", UNTRUSTED)
@pytest.mark.usefixtures("trusted")
def test_an_exchange_that_does_not_prove_itself_is_not_asked(peer: PeerMaker, authority: trustme.CA, name: str) -> None:
    server = peer(answer(GOOD), tls=UNTRUSTED[name](authority))
    assert refusal(server.url) == "connection"
    assert server.requests == []


def test_an_unknown_authority_is_not_trusted_by_default(peer: PeerMaker, authority: trustme.CA) -> None:
    server = peer(answer(GOOD), tls=server_context(authority.issue_cert("127.0.0.1")))
    outcome = PriceClient(server.url, ("BTCUSDT",), SECONDS).ask()
    assert isinstance(outcome, Refusal)
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.reason


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (for_ever(OK + b"Content-Length: 1000000\r\n\r\n", b" ", 0.05), "timeout"),
        (for_ever(OK, b"X: y\r\n", 0.05), "timeout"),
        (for_ever(OK + b"\r\n", BIG), "oversized"),
        (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "oversized"),
    ],
)
@pytest.mark.usefixtures("trusted")
def test_what_does_not_end_is_ended_within_tls(
    peer: PeerMaker, authority: trustme.CA, behave: Behaviour, kind: str
) -> None:
    server = peer(behave, tls=server_context(authority.issue_cert("127.0.0.1")))
    client = PriceClient(server.url, ("BTCUSDT",), SECONDS)
    outcome = ask(client, memory=20_000_000)
    assert isinstance(outcome, Refusal)
    assert outcome.kind == kind


def on_connection(act: Callable[[socket.socket], None]) -> tuple[int, Callable[[], None]]:
    """A server that does not wait for a request; returns its port and how to stop it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection:
                    act(connection)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], lambda: listener.shutdown(socket.SHUT_RDWR)


def drip_handshake(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KB begins
    while True:
        connection.sendall(b"\x02")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (lambda connection: connection.sendall(GOOD), "connection"),
        (drip_handshake, "timeout"),
        (lambda connection: time.sleep(2), "timeout"),
        (lambda connection: None, "connection"),
    ],
)
def test_no_tls_at_all(act: Callable[[socket.socket], None], kind: str) -> None:
    port, stop = on_connection(act)
    client = PriceClient(f"https://127.0.0.1:{port}", ("BTCUSDT",), SECONDS)
    outcome = ask(client, memory=20_000_000)
    assert isinstance(outcome, Refusal)
    assert outcome.kind == kind
    stop()


def test_tls_where_none_is_expected(peer: PeerMaker, authority: trustme.CA) -> None:
    server = peer(answer(GOOD), tls=server_context(authority.issue_cert("127.0.0.1")))
    assert refusal(server.url.replace("https", "http")) in ("connection", "timeout")


# Names and addresses


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> list[str]:
    """Let every name have these addresses, in this order; returns what has been looked up, filled later."""
    asked: list[str] = []

    def look_up(host: str, *_arguments: Any, **_options: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address, port in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody takes connections: its queue is full, so the network drops what comes."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    waiting = []
    for _ in range(1_000):
        client = socket.socket()
        client.settimeout(0.2)
        waiting.append(client)
        try:
            client.connect(address)
        except TimeoutError:
            break
    else:
        pytest.skip("this system's queues have no end")
    yield address[1]
    for client in waiting:
        client.close()
    listener.close()


def test_ipv6_first_where_nobody_listens(peer: PeerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    server = peer(answer(GOOD))
    resolve_to(monkeypatch, ("::1", server.port), ("127.0.0.1", server.port))
    assert isinstance(ask_once(f"http://localhost:{server.port}"), Prices)


def test_ipv6_only(peer: PeerMaker) -> None:
    server = peer(answer(GOOD), host="::1")
    assert isinstance(ask_once(server.url), Prices)
    assert b"Host: [::1]:%d\r\n" % server.port in server.requests[0]


def test_an_address_that_swallows_everything_leaves_time_for_the_next(
    peer: PeerMaker, monkeypatch: pytest.MonkeyPatch, black_hole: int
) -> None:
    server = peer(last_answer(GOOD))
    client = PriceClient("http://exchange.test", ("BTCUSDT",), 1.0)
    resolve_to(monkeypatch, ("127.0.0.1", black_hole), ("127.0.0.1", server.port))
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert not isinstance(client.ask(), Refusal)
        took.append(time.monotonic() - began)
        time.sleep(0.02)
    assert 0.25 < took[0] < 1
    assert max(took[1:]) < 0.2, "the address that was good comes first"
    client.close()


def test_many_such_addresses_take_no_longer_than_one(monkeypatch: pytest.MonkeyPatch, black_hole: int) -> None:
    resolve_to(monkeypatch, *[("127.0.0.1", black_hole)] * 8)
    assert refusal("http://exchange.test") == "timeout"


def test_without_a_network_that_is_what_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(*_arguments: Any) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    resolve_to(monkeypatch, ("127.0.0.1", 1), ("127.0.0.2", 1))
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    caplog.set_level(logging.INFO)
    outcome = ask_once("http://exchange.test")
    assert outcome == Refusal("connection", "exchange.test cannot be reached: is there a network?")
    assert "Network is unreachable" in caplog.text


def test_a_name_that_is_not_known_or_not_answered_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_arguments: Any, **_options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    caplog.set_level(logging.INFO)
    outcome = ask_once("http://exchange.test")
    assert outcome == Refusal("connection", "exchange.test cannot be reached: is there a network?")
    assert "Name or service not known" in caplog.text

    def unanswered(*_arguments: Any, **_options: Any) -> list[Any]:
        time.sleep(2)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    outcome = ask_once("http://exchange.test")
    assert isinstance(outcome, Refusal)
    assert (outcome.kind, "exchange.test" in outcome.reason) == ("timeout", True)


# Proxies


def test_a_proxy_is_used_for_what_is_not_loopback_and_is_bounded_as_well(
    peer: PeerMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = peer(answer(GOOD))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert isinstance(ask_once("http://exchange.test"), Prices)
    assert proxy.requests[0].startswith(b"GET http://exchange.test/api/v3/ticker/price?symbol=BTCUSDT HTTP/1.1\r\n")
    dripping = for_ever(b"HTTP/1.1 200 Connection established\r\n", b"X: y\r\n", 0.05)
    monkeypatch.setenv("HTTP_PROXY", peer(dripping).url)
    assert refusal("http://exchange.test") == "timeout"
    monkeypatch.setenv("HTTPS_PROXY", peer(dripping).url)
    assert refusal("https://exchange.test") == "timeout"
    endless = for_ever(b"HTTP/1.1 200 Connection established\r\n", b"X: y\r\n" * 1_000)
    monkeypatch.setenv("HTTPS_PROXY", peer(endless).url)
    assert refusal("https://exchange.test") in ("connection", "oversized")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    assert refusal("https://exchange.test") == "connection"
    monkeypatch.setenv("NO_PROXY", "exchange.test")
    resolve_to(monkeypatch, ("127.0.0.1", peer(answer(GOOD)).port))
    assert isinstance(ask_once("http://exchange.test"), Prices)


def test_answers_damaged_at_random_never_raise(peer: PeerMaker) -> None:
    chance = random.Random(4)
    pieces = (b"\r\n", b"\x00", b"9" * 12, b"-1", b"HTTP/1.1 100 Continue\r\n\r\n", b"Retry-After: 1e9\r\n", b"[\xff")
    redirected = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Encoding: gzip\r\n\r\nx"
    banned = b'HTTP/1.1 418 Banned\r\nRetry-After: 30\r\n\r\n{"code":-1003,"msg":"IP banned until 1746677558000."}'

    def damaged(connection: socket.socket, _head: bytes) -> None:
        content = bytearray(chance.choice((GOOD, CHUNKED + b"27\r\n" + BODY + b"\r\n0\r\n\r\n", redirected, banned)))
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(len(content))
            content[place : place + chance.choice((0, 1, 9))] = chance.choice(pieces)
        last_answer(bytes(content))(connection, b"")

    client = PriceClient(peer(damaged).url, ("BTCUSDT",), SECONDS)
    kinds = {getattr(ask(client), "kind", "prices") for _ in range(400)}
    assert {"prices", "garbage", "connection", "redirect", "418"} <= kinds
    client.close()
