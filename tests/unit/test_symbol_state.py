"""State laid out in few calls: what is put is what is got, whatever the order, and calls are as few as promised."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs.framing import decode_blobs, encode_blobs
from spark_jobs.jobs import symbol_state
from spark_jobs.jobs.symbol_state import ChunkCache, ChunkState, SymbolState


class Handle:
    """Spark's state of one bucket, with its calls counted."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.value: tuple[bytes] | None = None
        self.map: dict[tuple[str, int], tuple[bytes]] = {}
        self.parked: Handle | None = None

    def getValueState(self, _name: str, _schema: str) -> Handle:
        return self

    def getMapState(self, name: str, _key: str, _value: str) -> Handle:
        if name == "parked":
            self.parked = self.parked or Handle()
            return self.parked
        return self

    def get(self) -> tuple[bytes] | None:
        self.calls["get"] += 1
        return self.value

    def update(self, value: tuple[bytes]) -> None:
        self.calls["update"] += 1
        self.value = value

    def getValue(self, key: tuple[str, int]) -> tuple[bytes] | None:
        self.calls["load"] += 1
        return self.map.get(key)

    def updateValue(self, key: tuple[str, int], value: tuple[bytes]) -> None:
        self.calls["store"] += 1
        self.map[key] = value

    def removeKey(self, key: tuple[str, int]) -> None:
        del self.map[key]


def states(handle: Handle, cache: ChunkCache | None = None) -> tuple[SymbolState, ChunkState]:
    """As a new task finds them."""
    spark = cast(StatefulProcessorHandle, cast(Any, handle))
    state = SymbolState(spark)
    state.load()
    state.turn_to("BTCUSDT")
    return state, ChunkState(spark, state, "chunks", cache)


@given(st.dictionaries(st.text(max_size=9), st.binary(max_size=30)))
def test_blobs_come_back_as_they_were(blobs: dict[str, bytes]) -> None:
    assert decode_blobs(encode_blobs(blobs)) == blobs


STEPS = st.lists(st.tuples(st.sampled_from(["store", "remove", "task"]), st.integers(-3, 3), st.binary(max_size=5)))


@given(STEPS)
def test_chunks_are_those_of_a_dictionary(steps: list[tuple[str, int, bytes]]) -> None:
    handle, expected = Handle(), dict[int, bytes]()
    state, chunks = states(handle)
    for step, minute, chunk in steps:
        if step == "store":
            chunks.store(minute, chunk)
            expected[minute] = chunk
        elif step == "remove" and minute in expected:
            chunks.remove(minute)
            del expected[minute]
        elif step == "task":
            state.save()
            state, chunks = states(handle)
        assert {each: chunks.load(each) for each in expected} == expected


def test_a_micro_batch_reads_and_writes_one_value() -> None:
    handle, cache = Handle(), ChunkCache(100)
    state, chunks = states(handle, cache)
    for minute in range(5):
        chunks.store(minute, b"chunk %d" % minute)
    state.put("index", b"i")
    state.save()
    handle.calls.clear()
    state, chunks = states(handle, cache)
    chunks.store(4, b"longer")
    assert [chunks.load(minute) for minute in (1, 2, 4)] == [b"chunk 1", b"chunk 2", b"longer"]
    assert state.get("index") == b"i"
    state.save()
    assert handle.calls == {"get": 1, "update": 1}
    states(handle)[0].save()
    assert handle.calls == {"get": 2, "update": 1}


def test_a_cache_keeps_what_is_used_and_no_more_than_it_may() -> None:
    cache = ChunkCache(20)
    cache.put(b"a", 1, b"x" * 8)
    cache.put(b"a", 2, b"y" * 8)
    assert cache.get(b"a", 1) == b"x" * 8
    cache.put(b"b", 1, b"z" * 8)
    assert [cache.get(b"a", 1), cache.get(b"a", 2), cache.get(b"b", 1)] == [b"x" * 8, None, b"z" * 8]
    cache.forget(b"a", 1)
    cache.put(b"b", 1, b"")
    cache.put(b"b", 2, b"w" * 20)
    assert cache.get(b"b", 2) == b"w" * 20


def test_another_state_never_finds_a_former_ones_chunks() -> None:
    cache = ChunkCache(100)
    for content in (b"first", b"second"):
        handle = Handle()
        state, chunks = states(handle, cache)
        chunks.store(1, content)
        chunks.store(2, b"newer")
        state.save()
        assert states(handle, cache)[1].load(1) == content


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "chunk", "save"]), st.binary(max_size=5))))
def test_symbols_of_a_bucket_keep_to_themselves(steps: list[tuple[str, str, bytes]]) -> None:
    handle, cache = Handle(), ChunkCache(100)
    state, chunks = states(handle, cache)
    blobs, minutes = dict[str, bytes](), dict[str, list[bytes]]()
    for symbol, step, content in steps:
        state.turn_to(symbol)
        if step == "put":
            state.put("blob", content)
            blobs[symbol] = content
        elif step == "chunk":
            minutes.setdefault(symbol, []).append(content)
            chunks.store(len(minutes[symbol]), content)
        else:
            state.save()
            state, chunks = states(handle, cache)
        for each in "abc":
            state.turn_to(each)
            assert state.get("blob") == blobs.get(each)
            assert [chunks.load(1 + place) for place in range(len(minutes.get(each, [])))] == minutes.get(each, [])


NEWS = st.lists(st.sets(st.sampled_from("abcdef"), min_size=1, max_size=3), max_size=40)


@given(NEWS, st.integers(1, 4), st.integers(1, 3))
def test_symbols_without_news_are_parked_and_come_back_as_they_were(
    news: list[set[str]], visits: int, at_once: int
) -> None:
    handle, expected = Handle(), dict[str, bytes]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symbol_state, "_ROUND_VISITS", visits)
        patch.setattr(symbol_state, "_PARKED_AT_ONCE", at_once)
        for number, symbols in enumerate(news):
            state, chunks = states(handle)
            for symbol in sorted(symbols):
                state.turn_to(symbol)
                assert state.get("blob") == expected.get(symbol)
                assert expected.get(symbol) is None or chunks.load(1) == expected[symbol]
                expected[symbol] = b"%d" % number
                state.put("blob", expected[symbol])
                chunks.store(1, expected[symbol])
            state.save()


def test_a_bucket_rewrites_only_those_that_have_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol_state, "_ROUND_VISITS", 10)
    handle = Handle()
    for number in range(500):
        state, _ = states(handle)
        state.turn_to(f"S{number}" if number < 400 else "BTCUSDT")
        state.put("blob", b"x" * 1_000)
        state.save()
    assert handle.value is not None
    assert handle.parked is not None
    assert len(handle.value[0]) < 3_000
    assert len(handle.parked.map) == 400
