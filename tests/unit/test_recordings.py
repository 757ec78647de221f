"""What recordings are read, from what they are packed in to the lines that go out; and what is refused, and how."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.recordings import container, sorting, text
from producer.recordings.errors import EXAMPLE, RecordingError
from producer.recordings.location import location, path_of, readable_again
from producer.recordings.recording import Recording, judge
from producer.recordings.sorting import in_order
from producer.recordings.tally import Tally
from producer.recordings.text import LONGEST_LINE

TICK = EXAMPLE.encode()
BTCUSDT_TRADES = "BTCUSDT-trades-2025-01-01"


def tick(symbol: str, time_ms: int, price: str = "5") -> bytes:
    timestamp = np.datetime_as_string(np.datetime64(time_ms, "ms"), timezone="UTC")
    return f'{{"symbol":"{symbol}","price":{price},"timestamp":"{timestamp}"}}'.encode()


def zipped(content: bytes, name: str = "ticks.jsonl", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr(name, content)
        return file.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": zstd.compress,
    "zip": zipped,
    "gzip in gzip": lambda content: gzip.compress(gzip.compress(content)),
    "zip of bzip2": lambda content: zipped(bz2.compress(content)),
}
STREAMS = ("gzip", "bzip2", "zstd")


def write(folder: Path, content: bytes, name: str = "recording") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def lines_of(path: Path, symbol: str | None = None) -> list[bytes]:
    return [line for batch in Recording(location(path), symbol).batches() for line in batch.lines]


def refusal(path: Path, symbol: str | None = None) -> str:
    with pytest.raises(RecordingError) as refused:
        for _ in Recording(location(path), symbol).batches():
            pass
    return str(refused.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.binary(max_size=400).map(lambda content: content.replace(b"n", b"\n")), st.sampled_from(sorted(PACKERS)))
def test_lines_end_at_newlines_and_nowhere_else(tmp_path: Path, content: bytes, packer: str) -> None:
    path = write(tmp_path, PACKERS[packer](TICK + b"\n" + content))
    expected = (TICK + b"\n" + content).split(b"\n")
    assert lines_of(path) == (expected[:-1] if expected[-1] == b"" else expected)


@pytest.mark.parametrize("packer", PACKERS)
def test_only_the_bytes_tell_what_a_file_is_packed_in(tmp_path: Path, packer: str) -> None:
    lines = [TICK, b"", b"x\r", b"\x0b\x85\xe2\x80\xa8", b"\x00", TICK + b"\r"]
    content = b"\xef\xbb\xbf" + b"\n".join(lines)
    for name in ("recording.jsonl", "recording.jsonl.gz", "recording.zip", "a name with spaces.zst"):
        assert lines_of(write(tmp_path, PACKERS[packer](content), name)) == lines
    recording = Recording(location(tmp_path / "recording.jsonl"))
    assert [batch.unfinished for batch in recording.batches()] == [False, True]


@pytest.mark.parametrize("packer", STREAMS)
def test_what_was_appended_is_read_as_well(tmp_path: Path, packer: str) -> None:
    pack = PACKERS[packer]
    assert lines_of(write(tmp_path, pack(TICK + b"\n") + pack(b"x\n") + pack(TICK))) == [TICK, b"x", TICK]


def test_lines_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_CHUNK_BYTES", 7)
    lines = [TICK, b"", b"ab", b"0123456", b"", b"x" * 50]
    assert lines_of(write(tmp_path, b"\n".join(lines) + b"\n")) == lines


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "zstd", "zip"])
def test_what_is_cut_off_is_told_with_what_can_be_read(tmp_path: Path, packer: str) -> None:
    content = b"".join(tick("BTCUSDT", number * 7_919 % 10**9) + b"\n" for number in range(60_000))
    packed = PACKERS[packer](content)
    path = write(tmp_path, packed[: len(packed) * 3 // 4])
    told = refusal(path)
    assert "cut off" in told
    assert "etch it again" in told
    if packer != "zip":
        assert "whole lines can be read" in told
        assert "| head -n" in told
    path.write_bytes(packed[:8])
    assert "cut off" in refusal(path)


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    content = b"".join(tick("BTCUSDT", number * 7_919 % 10**9) + b"\n" for number in range(60_000))
    for name in ("gzip", "bzip2", "zstd", "zip"):
        packed = bytearray(PACKERS[name](content))
        at = len(packed) * 3 // 4
        packed[at : at + 64] = bytes(byte ^ 0x55 for byte in packed[at : at + 64])
        assert "damaged" in refusal(write(tmp_path, bytes(packed))), name


def test_a_zip_archive_holds_one_file(tmp_path: Path) -> None:
    path = tmp_path / "some ticks.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/", b"")
        archive.writestr("__MACOSX/._ticks", b"x")
        archive.writestr("folder/ticks", TICK)
    assert lines_of(path) == [TICK]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more ticks", TICK)
    told = refusal(path)
    assert "zip archive of 2 files (folder/ticks, more ticks)" in told
    assert f"`unzip -p '{path}' folder/ticks | tickhouse replay -`" in told
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", b"")
        archive.writestr("xl/workbook.xml", b"")
    assert "Office document" in refusal(path)
    with zipfile.ZipFile(path, "w"):
        pass
    assert "without a file in it" in refusal(path)
    assert "unpack one of the two first" in refusal(write(tmp_path, gzip.compress(zipped(TICK))))


def test_a_password_and_a_strange_method_are_told(tmp_path: Path) -> None:
    packed = bytearray(zipped(TICK))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(signature) + flags] |= 1
    assert "encrypted with a password" in refusal(write(tmp_path, bytes(packed)))
    packed = bytearray(zipped(TICK))
    for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        packed[packed.index(signature) + method] = 97
    assert "unpack it first" in refusal(write(tmp_path, bytes(packed)))


def test_no_file_expands_without_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_EXPANSION_FREE_BYTES", 1_000_000)
    content = TICK + b"\n" * 20_000_000
    for packer in STREAMS:
        assert "expand to more than 250 times as much" in refusal(write(tmp_path, PACKERS[packer](content)))


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "none")
    assert "there is no file" in refusal(write(tmp_path, TICK) / "none")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("packer", PACKERS)
def test_an_empty_recording_has_no_lines(tmp_path: Path, packer: str) -> None:
    assert lines_of(write(tmp_path, PACKERS[packer](b""))) == []
    assert lines_of(write(tmp_path, PACKERS[packer](b"\xef\xbb\xbf"))) == []


def test_a_long_line_is_told_with_its_number(tmp_path: Path) -> None:
    assert len(lines_of(write(tmp_path, TICK + b"\n" + b"b" * LONGEST_LINE + b"\n"))) == 2
    assert "line 2 of" in refusal(write(tmp_path, TICK + b"\n" + b"b" * (LONGEST_LINE + 1) + b"\n"))
    assert "line 2 of" in refusal(write(tmp_path, TICK + b"\n" + b"b" * (LONGEST_LINE * 3)))


JSON_ARRAY = json.dumps([json.loads(TICK)] * 3).encode()


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        ((EXAMPLE + "\n").encode("utf-16"), "text in UTF-16", "iconv -f UTF-16 -t UTF-8"),
        ((EXAMPLE + "\n").encode("utf-16-le"), "text in UTF-16LE", "iconv -f UTF-16LE -t UTF-8"),
        ((EXAMPLE + "\n").encode("utf-16-be"), "text in UTF-16BE", "iconv -f UTF-16BE -t UTF-8"),
        ((EXAMPLE + "\n").encode("utf-32"), "text in UTF-32", "iconv -f UTF-32 -t UTF-8"),
        (JSON_ARRAY, "a JSON array", "jq -c '.[]'"),
        (JSON_ARRAY * 30_000, "a JSON array", "jq -c '.[]'"),
        (json.dumps([json.loads(TICK)] * 3, indent=1).encode(), "a JSON array", "jq -c '.[]'"),
        (json.dumps(json.loads(TICK), indent=1).encode(), "JSON over several lines", "jq -c ."),
        (b"\r".join([TICK] * 3), "lines that end with carriage returns", r"sed 's/\r/\n/g'"),
        (
            b"trade_time_ms,trade_id,price\n1723161255342,1,2\n",
            "CSV that begins with trade_time_ms,",
            "Binance's archive",
        ),
        (b"PAR1\x15\x04" + bytes(range(256)) * 9_000, "a Parquet file", "one tick on each line"),
        (b"SQLite format 3\x00" + bytes(2_000), "an SQLite database", "one tick on each line"),
        (b"\xfd7zXZ\x00\x00\x04" + bytes(range(256)), "xz data", "xz -dc"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(range(256)), "a 7z archive", "7z x -so"),
        (b"\x04\x22\x4d\x18" + bytes(range(256)), "lz4 data", "lz4 -dc"),
        (b"ticks.jsonl" + bytes(246) + b"ustar\x00" + bytes(250) + TICK[:-1], "a tar archive", "tar -xO -f"),
        (b"<!DOCTYPE html>\n<html></html>\n", "a web page", "browser"),
        (b"<?xml version='1.0'?>\n<a/>\n", "XML", "one tick on each line"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "a PNG image", "one tick on each line"),
        (bytes(3_000_000), "binary data", "one tick on each line"),
        (b"\x7fELF\x02" + bytes(3_000), "a program", "one tick on each line"),
        (b"\n \n\n", "blank lines", "one tick on each line"),
        (b"\ncaf\xc3\xa9\n", "text of which no line is a tick (line 2: value: not JSON)", "one tick on each line"),
        (TICK.replace(b'Z"', b'"'), "text of which no line is a tick (line 1: timestamp:", "one tick on each line"),
        (b"caf\xe9 au lait\n" * 3, "binary data", "one tick on each line"),
    ],
)
@pytest.mark.parametrize("packer", ["plain", "gzip", "zip"])
def test_what_is_no_recording_is_called_by_its_name(
    tmp_path: Path, content: bytes, what: str, remedy: str, packer: str
) -> None:
    told = refusal(write(tmp_path, PACKERS[packer](content), "some file"))
    assert "nothing is sent" in told
    assert f"it looks like {what}" in told
    assert remedy in told
    if packer == "gzip" and "`" in told:
        assert f"`gzip -dc '{tmp_path}/some file' | {remedy}" in told


@pytest.mark.parametrize("packer", ["plain", "gzip", "zip"])
def test_the_commands_that_are_told_make_a_recording(tmp_path: Path, packer: str) -> None:
    programs = {
        "iconv": (EXAMPLE + "\n").encode("utf-16"),
        "jq": JSON_ARRAY,
        "xz": subprocess.run(["xz", "-c"], input=TICK, stdout=subprocess.PIPE, check=True).stdout,
        "sed": b"\r".join([TICK] * 3),
    }
    for program, content in programs.items():
        if shutil.which(program) is None or (packer == "zip" and shutil.which("unzip") is None):
            continue
        told = refusal(write(tmp_path, PACKERS[packer](content), "some file"))
        command = told.split("`")[1].removesuffix(" | tickhouse replay -")
        made = subprocess.run(command, shell=True, stdout=subprocess.PIPE, check=True).stdout
        assert lines_of(write(tmp_path, made, "made"))


def test_one_tick_among_the_first_lines_makes_a_recording(tmp_path: Path) -> None:
    assert len(lines_of(write(tmp_path, b"[1]\n" * 9_000 + TICK))) == 9_001
    assert "JSON array" in refusal(write(tmp_path, b"[1]\n" * 60_000 + TICK))


# Binance's archive

SPOT_2024 = b"1,42.50000000,0.1,4.25,1735603200123,True,True\n2,42.6,0.1,4.26,1735603200123,False,True\n"
SPOT_2025 = b"1,42.50000000,0.1,4.25,1735689600123456,True,True\r\n2,42.6,0.1,4.26,1735689600999999,False,True\r\n"
FUTURES_TRADES = b"id,price,qty,quote_qty,time,is_buyer_maker\n1,42.5,0.1,4.25,1735689600123,true\n"
SPOT_AGGREGATED = b"1,42.5,0.1,10,12,1735689600123456,True,True\n"
FUTURES_AGGREGATED = (
    b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    b"1,42.5,0.1,10,12,1735689600123,false\n"
)
SPOT_KLINES = b"1735689600000000,40,44,39.5,42.5,10.1,1735689659999999,400.1,77,5.0,200.1,0\n"
FUTURES_KLINES = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
    b"1735689600000,40,44,39.5,42.5,10.1,1735689659999,400.1,77,5.0,200.1,0\n"
)


@pytest.mark.parametrize(
    ("name", "content", "ticks"),
    [
        (
            "BTCUSDT-trades-2024-12-31",
            SPOT_2024,
            [
                ("BTCUSDT", "42.50000000", "2024-12-31T00:00:00.123Z"),
                ("BTCUSDT", "42.6", "2024-12-31T00:00:00.123Z"),
            ],
        ),
        (
            "1000SATSUSDT-trades-2025-01-01 (1)",
            SPOT_2025,
            [
                ("1000SATSUSDT", "42.50000000", "2025-01-01T00:00:00.123Z"),
                ("1000SATSUSDT", "42.6", "2025-01-01T00:00:00.999Z"),
            ],
        ),
        ("BTCUSD_PERP-trades-2025-01", FUTURES_TRADES, [("BTCUSD_PERP", "42.5", "2025-01-01T00:00:00.123Z")]),
        ("ethbtc-aggTrades-2025-01-01", SPOT_AGGREGATED, [("ETHBTC", "42.5", "2025-01-01T00:00:00.123Z")]),
        ("BTCUSDT-aggTrades-2025-01-01", FUTURES_AGGREGATED, [("BTCUSDT", "42.5", "2025-01-01T00:00:00.123Z")]),
        ("BTCUSDT-1m-2025-01-01", SPOT_KLINES, [("BTCUSDT", "42.5", "2025-01-01T00:00:59.999Z")]),
        ("BTCUSDT-1mo-2025-01", FUTURES_KLINES, [("BTCUSDT", "42.5", "2025-01-01T00:00:59.999Z")]),
    ],
)
@pytest.mark.parametrize("form", ["zip", "csv", "csv.gz", "renamed.zip", "symbol"])
def test_binances_archive_is_taken_as_it_is(
    tmp_path: Path, name: str, content: bytes, ticks: list[tuple[str, str, str]], form: str
) -> None:
    symbol = None
    if form == "zip":
        path = write(tmp_path, zipped(content, f"{name}.csv"), f"{name}.zip")
    elif form == "renamed.zip":
        path = write(tmp_path, zipped(content, f"{name}.csv"), "download.zip")
    elif form == "symbol":
        path, symbol = write(tmp_path, content, "stdin"), ticks[0][0]
    else:
        path = write(tmp_path, gzip.compress(content) if form == "csv.gz" else content, f"{name}.{form}")
    lines = lines_of(path, symbol)
    expected = [f'{{"symbol":"{s}","price":{p},"timestamp":"{t}"}}'.encode() for s, p, t in ticks]
    assert lines == expected
    assert not judge(lines).reasons
    assert ticks[0][0] in Recording(location(path), symbol).form


def test_a_bad_row_goes_out_as_it_is(tmp_path: Path) -> None:
    content = FUTURES_TRADES + b"2,42.5,0.1,4.25,soon,true\n" + FUTURES_TRADES + b"3,-1,0.1,4.25,1735689600123,true\n\n"
    lines = lines_of(write(tmp_path, content, f"{BTCUSDT_TRADES}.csv"))
    assert lines[1] == b"2,42.5,0.1,4.25,soon,true"
    assert sorted(judge(lines).reasons) == [1, 2, 4, 5]
    assert Recording(location(tmp_path / f"{BTCUSDT_TRADES}.csv")).header == 1


def test_only_the_names_of_columns_are_an_empty_recording(tmp_path: Path) -> None:
    header = FUTURES_TRADES.split(b"\n")[0] + b"\n"
    assert lines_of(write(tmp_path, header, f"{BTCUSDT_TRADES}.csv")) == []


def test_the_symbol_must_be_known_and_is_asked_for_only_where_it_is_not(tmp_path: Path) -> None:
    assert "name the symbol, --symbol" in refusal(write(tmp_path, SPOT_2025, "trades.csv"))
    assert "leave out --symbol ETHUSDT" in refusal(write(tmp_path, TICK), "ETHUSDT")
    assert lines_of(tmp_path / "trades.csv", "ETHUSDT")[0].startswith(b'{"symbol":"ETHUSDT"')
    assert "no line is a tick" in refusal(tmp_path / "trades.csv", "eth/usdt")


# What becomes of ticks


def brute_force(times: list[tuple[str, int]], lateness: int) -> tuple[int, int, int]:
    """Late, duplicate and waiting ticks, straight from the contract."""
    largest: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    late = duplicates = 0
    for symbol, time in times:
        if time < largest.get(symbol, time) - lateness:
            late += 1
            continue
        largest[symbol] = max(largest.get(symbol, time), time)
        duplicates += (symbol, time) in seen
        seen.add((symbol, time))
    return late, duplicates, sum(time + lateness > largest[symbol] for symbol, time in seen)


@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 60)), max_size=80),
    st.integers(0, 20),
    st.integers(0, 80),
    st.integers(1, 10),
)
@settings(deadline=None)
def test_late_duplicate_and_waiting_ticks_are_those_of_the_contract(
    ticks: list[tuple[str, int]], lateness: int, stored: int, size: int
) -> None:
    def count(tally: Tally, part: list[tuple[str, int]]) -> None:
        for at in range(0, len(part), size):
            for symbol in "AB":
                tally.add(symbol, np.array([time for name, time in part[at : at + size] if name == symbol], dtype=int))

    topic = Tally(lateness, {})
    count(topic, ticks[:stored])
    tally = Tally(lateness, topic.recent())
    count(tally, ticks[stored:])
    late, duplicates, waiting = brute_force(ticks, lateness)
    assert (topic.late + tally.late, topic.duplicates + tally.duplicates) == (late, duplicates)
    if not stored:
        assert tally.waiting == waiting
    in_order = sorted(ticks[stored:], key=lambda each: each[1])
    assert tally.late_for_good == brute_force(ticks[:stored] + in_order, lateness)[0] - topic.late


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 9), st.integers(2, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_sorting_is_stable_and_keeps_every_line(tmp_path: Path, seconds: list[int], at_once: int, files: int) -> None:
    lines = [tick("A", second * 1_000, str(number + 1)) if second % 7 else b"x%d" % number
             for number, second in enumerate(seconds)]  # fmt: skip
    lines.insert(0, TICK.replace(b"2025", b"1970"))
    times: list[int] = []
    for line, time in zip(lines, judge(lines).timestamps.tolist(), strict=True):
        times.append(time if line.startswith(b"{") else times[-1])
    expected = [line for _, line in sorted(zip(times, lines, strict=True), key=lambda pair: pair[0])]
    folder = tmp_path / "sorting"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_LINES_AT_ONCE", at_once)
        patch.setattr(sorting, "_FILES_AT_ONCE", files)
        patch.setattr(text, "_CHUNK_BYTES", 200)
        result = in_order(Recording(location(write(tmp_path, b"\n".join(lines)))), folder)
    assert [line for batch in result.batches() for line in batch.lines] == expected
    assert list(folder.iterdir()) == [result.place.path]


# Where it is


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("-", "/dev/stdin"),
        ("/a b/c.jsonl", "/a b/c.jsonl"),
        ("file:///a%20b/c.jsonl", "/a b/c.jsonl"),
        ("file://localhost/a", "/a"),
        ("~/a", "/home/somebody/a"),
    ],
)
def test_paths_are_understood(monkeypatch: pytest.MonkeyPatch, text: str, path: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert path_of(text) == Path(path)


@pytest.mark.parametrize(
    "text", ["", "https://data.binance.vision/a.zip", "file://elsewhere/a", "~nobody-at-all/a", "a\0b"]
)
def test_what_is_no_path_is_told(text: str) -> None:
    with pytest.raises(RecordingError):
        path_of(text)


def test_a_pipe_can_be_read_again_and_leaves_nothing(tmp_path: Path) -> None:
    fifo = tmp_path / f"{BTCUSDT_TRADES}.csv"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(SPOT_2025,))
    writer.start()
    folder = tmp_path / "home" / "input"
    with readable_again(fifo, folder) as place:
        writer.join()
        assert place.name == str(fifo)
        for _ in range(2):
            assert len([line for batch in Recording(place).batches() for line in batch.lines]) == 2
    assert not folder.exists()
    with readable_again(write(tmp_path, TICK), folder) as place:
        assert place.path == tmp_path / "recording"


def test_a_command_for_what_came_through_a_pipe_names_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"^standard input is no recording.*`gzip -dc \| jq -c '\.\[\]' \| tickhouse"
    ):
        Recording(location(write(tmp_path, gzip.compress(JSON_ARRAY)), "standard input"))
    with pytest.raises(RecordingError, match="does not fit onto the disk"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("producer.recordings.location._LEAST_FREE_BYTES", 10**18)
        with readable_again(Path("/dev/zero"), tmp_path / "input"):
            pass
