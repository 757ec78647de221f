"""Whether there is an exchange that the producer could use, asked the way the producer asks."""

from __future__ import annotations

import socket

from orchestration.local.ports import free_port
from orchestration.stack.lifecycle import why_unusable
from producer.simulator import Failure, Simulator
from tests.peers import Peer


def test_an_exchange_is_usable_when_it_answers_with_prices_or_does_not_know_a_symbol() -> None:
    simulator = Simulator()
    simulator.start()
    assert why_unusable(simulator.url, ["BTCUSDT", "ETHUSDT"]) is None
    assert why_unusable(simulator.url, ["BTCUSDT", "NOSUCH"]) is None
    simulator.exchange.script([Failure("451"), Failure("redirect"), Failure("html")])
    assert "restricted location" in (why_unusable(simulator.url, ["BTCUSDT"]) or "")
    assert why_unusable(simulator.url, ["BTCUSDT"]) is not None
    assert "not JSON" in (why_unusable(simulator.url, ["BTCUSDT"]) or "")
    simulator.stop()


def test_nobody_there_and_an_answer_without_end() -> None:
    assert "refused" in (why_unusable(f"http://127.0.0.1:{free_port()}", ["BTCUSDT"]) or "")

    def endless(connection: socket.socket, _head: bytes) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    peer = Peer(endless)
    assert "larger than" in (why_unusable(peer.url, ["BTCUSDT"]) or "")
    peer.stop()
