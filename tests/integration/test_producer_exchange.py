"""The HTTP client against the simulator: every failure that an exchange or a network can come up with."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from producer.exchanges.binance_answers import Hopeless, Prices, Refusal, read_answer
from producer.exchanges.binance_client import PriceClient, Received
from producer.simulator import FAILURES, WEIGHT_LIMIT, Exchange, Failure, Simulator
from producer.walk import CATALOGUE, Walk
from tests.socks_server import socks_server

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SHIBUSDT")
SECONDS = 1.2


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    server = Simulator(seed=7)
    server.start()
    yield server
    server.stop()


def ask(client: PriceClient, symbols: tuple[str, ...] = SYMBOLS) -> Prices | Refusal | Hopeless:
    began = time.monotonic()
    received = client.ask()
    assert time.monotonic() - began < SECONDS + 1
    if isinstance(received, Refusal):
        return received
    assert isinstance(received, Received)
    assert abs(time.time_ns() - received.wall_ns) < 10**9
    return read_answer(received.answer, symbols, received.wall_ns / 1e9)


def connections() -> set[threading.Thread]:
    """Of all simulators of this process: one of an earlier test may still be about to end."""
    return {thread for thread in threading.enumerate() if "process_request" in thread.name}


def test_prices_of_all_symbols_in_one_request_over_one_connection(simulator: Simulator) -> None:
    earlier = connections()
    client = PriceClient(simulator.url, SYMBOLS, SECONDS)
    outcomes = [ask(client) for _ in range(5)]
    for outcome in outcomes:
        assert isinstance(outcome, Prices)
        assert outcome.prices.keys() == set(SYMBOLS)
        for symbol, price in outcome.prices.items():
            assert Decimal(price) > 0
            assert Decimal(price).as_tuple().exponent == Decimal(CATALOGUE[symbol].tick).as_tuple().exponent
    asked = simulator.exchange.requests()
    assert asked["count"] == 5
    assert all(entry["query"] == {"symbols": ['["BTCUSDT","ETHUSDT","SHIBUSDT"]']} for entry in asked["recent"])
    assert len(connections() - earlier) == 1
    client.close()


def test_one_symbol_is_asked_for_as_binance_wants_it(simulator: Simulator) -> None:
    client = PriceClient(simulator.url, ("BTCUSDT",), SECONDS)
    outcome = ask(client, ("BTCUSDT",))
    assert isinstance(outcome, Prices)
    assert list(outcome.prices) == ["BTCUSDT"]
    assert simulator.exchange.requests()["recent"][0]["query"] == {"symbol": ["BTCUSDT"]}
    client.close()


# What each failure comes to. Slow ones take longer than the client waits.
EXPECTED: dict[str, tuple[str, float]] = {
    "400": ("hopeless", 1), "403": ("403", 1), "418": ("418", 0.01), "429": ("429", 0.01), "429-silent": ("429", 1),
    "451": ("451", 1), "500": ("500", 1), "502": ("502", 1), "503": ("503", 1), "504": ("504", 1),
    "redirect": ("redirect", 1), "garbage": ("garbage", 1), "html": ("garbage", 1), "empty": ("garbage", 1),
    "huge": ("oversized", 1), "bad-price": ("price", 1), "other-symbol": ("garbage", 1),
    "slow": ("timeout", 1.5), "trickle": ("timeout", 0.5), "trickle-headers": ("timeout", 0.5),
    "truncated": ("connection", 1), "reset": ("connection", 1),
}  # fmt: skip


def test_the_table_names_every_failure() -> None:
    assert EXPECTED.keys() == set(FAILURES)


@pytest.mark.parametrize("kind", FAILURES)
def test_every_failure_is_told_apart_and_the_next_answer_is_good(simulator: Simulator, kind: str) -> None:
    expected, seconds = EXPECTED[kind]
    client = PriceClient(simulator.url, SYMBOLS, SECONDS)
    simulator.exchange.script([Failure(kind, seconds)])
    outcome = ask(client)
    if expected == "hopeless":
        assert isinstance(outcome, Hopeless)
    else:
        assert isinstance(outcome, Refusal)
        assert outcome.kind == expected
    time.sleep(0.02)  # past the shortest ban
    assert isinstance(ask(client), Prices)
    assert simulator.exchange.requests()["count"] == 2, "nothing is asked twice behind our back, no redirect followed"
    client.close()


def test_nobody_there() -> None:
    server = Simulator()
    server.start()
    url = server.url
    server.stop()
    began = time.monotonic()
    outcome = ask(PriceClient(url, SYMBOLS, SECONDS))
    assert isinstance(outcome, Refusal)
    assert outcome.kind == "connection"
    assert time.monotonic() - began < SECONDS


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(ask(PriceClient(simulator.url, SYMBOLS, SECONDS)), Prices)


def through(proxy: str, monkeypatch: pytest.MonkeyPatch, url: str) -> PriceClient:
    """A client whose environment names that proxy for everything."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", proxy)
    return PriceClient(url, SYMBOLS, SECONDS)


def test_a_socks_proxy_that_resolves_names_itself(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with socks_server(urlsplit(simulator.url).port or 0, (b"me", b"pass")) as proxy:
        client = through(f"socks5h://me:pass@127.0.0.1:{proxy.port}", monkeypatch, "http://exchange.test:8080")
        assert all(isinstance(ask(client), Prices) for _ in range(3))
        client.close()
        assert proxy.asked_for == [("exchange.test", 8080)], (
            "one connection is kept open, and all goes through the proxy"
        )
        wrong = through(f"socks5h://me:wrong@127.0.0.1:{proxy.port}", monkeypatch, "http://exchange.test")
        refusal = ask(wrong)
        assert isinstance(refusal, Refusal)
        assert "authentication failed" in refusal.reason
        assert "wrong" not in refusal.reason


def test_a_socks_proxy_for_names_that_are_resolved_here(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with socks_server(urlsplit(simulator.url).port or 0) as proxy:
        client = through(f"socks5://localhost:{proxy.port}", monkeypatch, "http://192.0.2.7")
        assert isinstance(ask(client), Prices)
        client.close()
    assert proxy.asked_for == [("192.0.2.7", 80)]


def test_a_socks_proxy_that_has_no_way_or_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socks_server(1, reply=4) as proxy:
        refusal = ask(through(f"socks5h://127.0.0.1:{proxy.port}", monkeypatch, "http://exchange.test"))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, "Host unreachable" in refusal.reason) == ("connection", True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"socks5h://127.0.0.1:{silent.getsockname()[1]}"
        refusal = ask(through(address, monkeypatch, "https://exchange.test"))
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "timeout"


# The simulator itself


def get(simulator: Simulator, query: str) -> tuple[int, Any, requests.Response]:
    response = requests.get(f"{simulator.url}/api/v3/{query}", timeout=5)
    return response.status_code, response.json(), response


def test_the_simulator_answers_as_binance_does(simulator: Simulator) -> None:
    assert get(simulator, "ping")[:2] == (200, {})
    status, document, response = get(simulator, "ticker/price?symbol=BTCUSDT")
    assert status == 200
    assert document.keys() == {"symbol", "price"}
    assert isinstance(document["price"], str)
    assert " " not in response.text
    assert response.headers["X-MBX-USED-WEIGHT-1M"] == "2"
    status, document, response = get(simulator, 'ticker/price?symbols=["ETHUSDT","BTCUSDT"]')
    assert [entry["symbol"] for entry in document] == ["BTCUSDT", "ETHUSDT"]
    assert response.headers["X-MBX-USED-WEIGHT-1M"] == "6"
    assert len(get(simulator, "ticker/price")[1]) == len(CATALOGUE)
    for query, code in [
        ("symbol=NOSUCH", -1121), ("symbol=", -1100), ("symbol=btc%20usdt", -1100), ("symbols=BTCUSDT", -1100),
        ('symbols=["NOSUCH"]', -1121), ('symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128),
    ]:  # fmt: skip
        status, document, _ = get(simulator, f"ticker/price?{query}")
        assert (status, document["code"]) == (400, code), query
    assert requests.get(f"{simulator.url}/elsewhere", timeout=5).status_code == 404


def test_failures_can_be_scripted_over_http(simulator: Simulator) -> None:
    script = [{"kind": "503", "times": 2}, {"kind": "good"}, {"kind": "429", "seconds": 0.1}]
    assert requests.post(f"{simulator.url}/simulator/failures", json=script, timeout=5).status_code == 200
    statuses = [get(simulator, "ticker/price?symbol=BTCUSDT") for _ in range(4)]
    assert [status for status, _, _ in statuses] == [503, 503, 200, 429]
    assert statuses[3][2].headers["Retry-After"] == "1"
    assert requests.get(f"{simulator.url}/simulator/requests", timeout=5).json()["count"] == 4
    wrong: list[Any] = [[{"kind": "nonsense"}], [{"kind": "429", "often": 1}], [{}], 7]
    for bad in wrong:
        assert requests.post(f"{simulator.url}/simulator/failures", json=bad, timeout=5).status_code == 400


def test_who_goes_on_in_spite_of_a_429_is_banned(simulator: Simulator) -> None:
    simulator.exchange.script([Failure("429", 0.3)])
    assert get(simulator, "ticker/price?symbol=BTCUSDT")[0] == 429
    status, document, response = get(simulator, "ticker/price?symbol=BTCUSDT")
    assert status == 418
    assert "IP banned until" in document["msg"]
    assert int(response.headers["Retry-After"]) >= 2
    assert simulator.exchange.requests()["during_ban"] == 1


def test_the_limit_of_weight() -> None:
    exchange = Exchange(seed=0)
    query = {"symbols": [json.dumps(["BTCUSDT", "ETHUSDT"])]}
    statuses = [exchange.answer(query)[0].status for _ in range(WEIGHT_LIMIT // 4)]
    failing = exchange.answer(query)[1]
    assert set(statuses) == {200}
    assert failing is not None
    assert failing.kind == "429"
    assert exchange.answer(query)[1] is not None


def test_a_seed_gives_the_same_prices_with_flat_stretches_and_jumps() -> None:
    steps = 36_000
    for symbol in ("BTCUSDT", "ETHUSDT", "SHIBUSDT"):
        walk = Walk(symbol, CATALOGUE[symbol], seed=3)
        prices = [walk.price_at(step) for step in range(steps)]
        again = Walk(symbol, CATALOGUE[symbol], seed=3)
        assert again.price_at(steps - 1) == prices[-1]
        assert Walk(symbol, CATALOGUE[symbol], seed=4).price_at(steps - 1) != prices[-1]
        values = [float(price) for price in prices]
        changes = [abs(later / earlier - 1) for earlier, later in itertools.pairwise(values)]
        assert max(changes) > 0.0005, "no jump"
        assert 0.2 < sum(change == 0 for change in changes) / steps < 0.999
        assert max(values) / min(values) < 1.5


def test_random_failures_come_at_their_rate_and_repeatably() -> None:
    def kinds(rate: float, seed: int) -> list[str | None]:
        exchange = Exchange(seed, failure_rate=rate)
        failures = [exchange.answer({"symbol": ["BTCUSDT"]})[1] for _ in range(200)]
        return [failure.kind if failure else None for failure in failures]

    assert set(kinds(0.0, seed=1)) == {None}
    assert None not in kinds(1.0, seed=1)
    assert None in kinds(0.02, seed=1)
    assert set(kinds(0.02, seed=1)) != {None}
    assert kinds(0.02, seed=1) == kinds(0.02, seed=1) != kinds(0.02, seed=2)
    # All of them pass by themselves within seconds; a 429 that does not say for how long takes a minute.
    often = {kind for seed in range(20) for kind in kinds(1.0, seed)}
    assert often.isdisjoint({"400", "429-silent", "trickle-headers"})


def test_a_symbol_can_be_withdrawn_and_come_back() -> None:
    exchange = Exchange(seed=0)
    both = {"symbols": [json.dumps(["BTCUSDT", "ETHUSDT"])]}

    def names(query: dict[str, list[str]]) -> list[str]:
        return [entry["symbol"] for entry in json.loads(exchange.answer(query)[0].body)]

    exchange.withdraw("ETHUSDT")
    assert exchange.answer(both)[0].status == exchange.answer({"symbol": ["ETHUSDT"]})[0].status == 400
    assert "ETHUSDT" not in names({})
    exchange.withdraw("ETHUSDT", silently=True)
    assert names(both) == ["BTCUSDT"]
    exchange.withdraw()
    assert names(both) == ["BTCUSDT", "ETHUSDT"]
