"""The producer's pure parts: ticks, clock arithmetic, what an answer means, how long to pause, settings."""

from __future__ import annotations

import datetime
import email.utils
import itertools
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from producer.exchanges.binance_answers import (
    LONGEST_BAN_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Answer,
    Hopeless,
    Prices,
    Refusal,
    pause_after,
    read_answer,
)
from producer.heartbeat import Progress
from producer.schedule import PLAUSIBLE_GAP_SECONDS, Outlook, Pace, next_poll, plausible_times
from producer.settings import ProducerSettings
from producer.ticks import Identities, floor_to_step, price_literal, tick_message, timestamp_text

MS = 1_000_000
STEP = 100 * MS
NOW_NS = 1_746_677_558_312_345_678  # 2025-05-08T04:12:38.312345678Z


# ticks


def test_message_form() -> None:
    assert tick_message("BTCUSDT", "99190.48", floor_to_step(NOW_NS, STEP)) == (
        b'{"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38.300000+00:00"}'
    )


@pytest.mark.parametrize(
    "text", ["64000.10", "0.00000001", "9999999999.99999999", "1", "99190.48000000", "10", "0.10", "100000"]
)
def test_price_keeps_every_digit(text: str) -> None:
    assert price_literal(text) == text
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.00", "-1", "+1", "1.", ".5", "01", "1e5", "1E5", "NaN", "Infinity", " 1", "1 ", "1\n", "1,5", "١",
     "0.000000001", "10000000000", 64000.1, 64000, True, None, [], {}, "1_000", "0x10", '1,"x":2'],
)  # fmt: skip
def test_anything_else_is_no_price(text: object) -> None:
    assert price_literal(text) is None


@given(st.integers(0, 4_000_000_000 * 10**9), st.sampled_from([1, 10, 100, 250, 1_000, 60_000]))
def test_floor_and_text_agree_with_datetime(wall_ns: int, step_ms: int) -> None:
    floored = floor_to_step(wall_ns, step_ms * MS)
    assert floored <= wall_ns < floored + step_ms * MS
    assert floored % (step_ms * MS) == 0
    moment = datetime.datetime.fromisoformat(timestamp_text(floored))
    assert moment.utcoffset() == datetime.timedelta(0)
    assert (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(milliseconds=1) == (
        floored // MS
    )


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 20))))
def test_identities_only_ever_rise(offers: list[tuple[str, int]]) -> None:
    identities = Identities()
    admitted = [offer for offer in offers if identities.admit(*offer)]
    for symbol in "AB":
        times = [time for name, time in admitted if name == symbol]
        assert times == sorted(set(times))
        offered = [time for name, time in offers if name == symbol]
        assert not offered or max(offered) == times[-1]


# clock arithmetic


@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 450), min_size=1, max_size=200),
    st.sampled_from([10, 100, 1_000]),
)
def test_polls_never_drift_burst_or_repeat(start_ms: int, takes_ms: list[int], step_ms: int) -> None:
    step = step_ms * MS
    offset = 1_700_000_000_000 * MS  # between the two clocks
    monotonic = start_ms * MS + 12_345
    due: int | None = None
    polls: list[int] = []
    receipts: list[int] = []
    missed = 0
    for take_ms in takes_ms:
        poll = next_poll(due, step, monotonic + offset, monotonic)
        assert poll.due > monotonic
        due, missed = poll.due, missed + poll.missed
        polls.append(due)
        assert (due + offset) % step == 0
        monotonic = due + take_ms * MS + 77
        receipts.append(floor_to_step(monotonic + offset, step))
    assert all(later - earlier >= step for earlier, later in itertools.pairwise(polls))
    assert receipts == sorted(set(receipts)), "an identity twice or back in time"
    assert len(polls) + missed == (polls[-1] - polls[0]) // step + 1, "each step is polled or missed"


def test_first_poll_waits_for_the_boundary() -> None:
    assert next_poll(None, STEP, 5 * STEP + 30 * MS, 1_000 * MS) == (1_070 * MS, 0)


def test_after_a_stall_the_missed_polls_are_skipped() -> None:
    poll = next_poll(1_000 * MS, STEP, 50 * STEP + 20 * MS, 11_020 * MS)
    assert poll == (11_100 * MS, 100)


@pytest.mark.parametrize("jump_ms", [-3_600_000, -530, -37, -1, 1, 37, 99, 530, 3_600_000])
def test_a_wall_clock_that_jumps_moves_the_boundaries_and_nothing_else(jump_ms: int) -> None:
    wall, monotonic = 100 * STEP, 7_000 * MS
    poll = next_poll(None, STEP, wall, monotonic)
    wall += 100 * MS + 2 * MS + jump_ms * MS
    following = next_poll(poll.due, STEP, wall, poll.due + 2 * MS)
    assert STEP // 2 <= following.due - poll.due <= STEP + STEP // 2
    assert (wall + following.due - poll.due - 2 * MS) % STEP == 0
    assert following.missed == 0


@given(st.lists(st.floats(0, 1_000), min_size=1), st.sampled_from([0.5, 1.0, 20.0]))
def test_pace_keeps_to_the_recording(times: list[float], speed: float) -> None:
    pace = Pace(speed)
    now = 50.0
    for time in times:
        due = pace.due(time, now)
        assert due == pytest.approx(max(now, 50.0 + (time - times[0]) / speed))
        now = due


def plausible(*times: float | None) -> list[float | None]:
    result = list(plausible_times(enumerate(times)))
    assert [item for item, _ in result] == list(range(len(times)))
    return [time for _, time in result]


FAR = 2_000_000_000.0


def test_when_lines_will_be_sent_is_told_beforehand() -> None:
    recorded = [1_000, 2_000, None, 4_102_444_800_000, 1_500, 11_000]  # one of the year 2100
    assert Outlook(50_000, None).sent_ms(recorded) == [50_000] * 6
    assert Outlook(50_000, 1).sent_ms(recorded) == [50_000, 51_000, 51_000, 51_000, 51_000, 60_000]
    outlook = Outlook(50_000, 10)
    assert [time for part in (recorded[:2], recorded[2:]) for time in outlook.sent_ms(part)] == [
        50_000, 50_100, 50_100, 50_100, 50_100, 51_000,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((), []),
        ((1.0, 2.0, 3.0), [1.0, 2.0, 3.0]),
        ((1.0, FAR, 2.0, 3.0), [None, None, 2.0, 3.0]),
        ((FAR, 1.0, 2.0), [None, 1.0, 2.0]),
        ((1.0, 2.0, FAR), [1.0, 2.0, None]),
        ((1.0, 1.5, 700.0, 700.1), [1.0, 1.5, 700.0, 700.1]),
        ((1.0, None, 1.1), [1.0, None, 1.1]),
        ((1.0, 1.1, FAR, None, None, 1.2), [1.0, 1.1, None, None, None, 1.2]),
        ((1.0, 1.1, FAR, FAR * 2, 1.2, 1.3), [1.0, 1.1, None, None, 1.2, 1.3]),
        ((100.0, 100.1, 50.0, 0.0, 100.2), [100.0, 100.1, 50.0, 0.0, 100.2]),
        ((None, None), [None, None]),
        ((5.0,), [None]),
    ],
)
def test_stray_times_do_not_set_the_pace(times: tuple[float | None, ...], expected: list[float | None]) -> None:
    assert plausible(*times) == expected


@given(st.lists(st.one_of(st.none(), st.floats(-1e12, 1e12))))
def test_no_line_is_lost_or_moved_by_the_pace(times: list[float | None]) -> None:
    for given_time, kept in zip(times, plausible(*times), strict=True):
        assert kept is None or kept == given_time


@given(st.lists(st.floats(0, PLAUSIBLE_GAP_SECONDS), min_size=2))
def test_times_close_together_are_all_kept(times: list[float]) -> None:
    assert plausible(*times) == times


# answers

WALL = 1_746_677_558.0
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def answer(status: int, document: object, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Answer(status, {name.replace("_", "-"): text for name, text in headers.items()}, body)


def entry(symbol: str, price: object) -> dict[str, object]:
    return {"symbol": symbol, "price": price}


def test_prices_of_one_and_of_several_symbols() -> None:
    assert read_answer(answer(200, entry("BTCUSDT", "64000.10")), ("BTCUSDT",), WALL) == Prices(
        {"BTCUSDT": "64000.10"}, {}
    )
    several = [entry("ETHUSDT", "1934.27"), entry("NOTASKED", "1"), entry("BTCUSDT", "64000.10")]
    assert read_answer(answer(200, several), SYMBOLS, WALL) == Prices({"BTCUSDT": "64000.10", "ETHUSDT": "1934.27"}, {})


@pytest.mark.parametrize(
    "bad", [[], [entry("BTCUSDT", 64000.1)], [entry("BTCUSDT", "NaN")], [entry("BTCUSDT", "1"), entry("BTCUSDT", "2")]]
)
def test_one_bad_price_does_not_take_the_others_along(bad: list[dict[str, object]]) -> None:
    outcome = read_answer(answer(200, [*bad, entry("ETHUSDT", "1934.27")]), SYMBOLS, WALL)
    assert isinstance(outcome, Prices)
    assert outcome.prices == {"ETHUSDT": "1934.27"}
    assert list(outcome.faults) == ["BTCUSDT"]


@pytest.mark.parametrize(
    ("given_answer", "kind"),
    [
        (answer(200, b""), "garbage"),
        (answer(200, b"<html>"), "garbage"),
        (answer(200, b"\xff\xfe"), "garbage"),
        (answer(200, b"[" * 100_000), "garbage"),
        (answer(200, [1, 2]), "garbage"),
        (answer(200, "text"), "garbage"),
        (answer(200, []), "garbage"),
        (answer(200, {}), "garbage"),
        (answer(200, entry("OTHER", "1")), "garbage"),
        (answer(200, {"symbol": ["BTCUSDT"], "price": "1"}), "garbage"),
        (answer(200, {"code": -1003, "msg": "Too many requests."}), "garbage"),
        (answer(200, None), "garbage"),
        (answer(200, [entry("BTCUSDT", "1"), 7]), "garbage"),
        (answer(200, b'\xef\xbb\xbf{"symbol":"BTCUSDT","price":"1"}'), "garbage"),
        (answer(200, '{"symbol":"BTCUSDT","price":"1"}'.encode("utf-16")), "garbage"),
        (answer(200, '{"symbol":"BTCUSDT","price":"1"}'.encode("utf-16-le")), "garbage"),
        (answer(200, '{"symbol":"BTCUSDT","price":"1"}'.encode("utf-32-be")), "garbage"),
        (answer(200, b'{"symbol":"BTCUSDT","price":"1"}{"symbol":"BTCUSDT","price":"2"}'), "garbage"),
        (answer(200, b'{"symbol":"BTCUSDT","price":"1","price":"2"}'), "garbage"),
        (answer(200, b'{"symbol":"ETHUSDT","symbol":"BTCUSDT","price":"1"}'), "garbage"),
        (answer(200, b'{"symbol":"BTCUSDT","price":' + b"1" * 5_000 + b"}"), "garbage"),
        (answer(200, b'{"symbol":"BTCUSDT","price":NaN}'), "price"),
        (answer(200, b'{"symbol":"BTCUSDT","price":64000.10}'), "price"),
        (answer(200, b'{"symbol":"BTCUSDT"}'), "price"),
        (answer(200, entry("BTCUSDT", "6.4e4")), "price"),
        (answer(200, entry("BTCUSDT", "")), "price"),
        (answer(200, entry("BTCUSDT", ["1"])), "price"),
        (answer(200, entry("BTCUSDT", "-1")), "price"),
        (answer(204, b""), "204"),
        (answer(302, b"", location="/elsewhere"), "redirect"),
        (answer(400, b"<html>gateway"), "400"),
        (answer(400, {"code": -1000, "msg": "An unknown error occurred."}), "400"),
        (answer(400, {"code": "-1121", "msg": "not a code"}), "400"),
        (answer(400, {"code": "x" * 50_000, "msg": "\x1b[2J\nforged: a line of its own\ud800"}), "400"),
        (answer(403, b"<html>firewall"), "403"),
        (answer(404, b""), "404"),
        (answer(451, {"code": 0, "msg": "restricted location"}), "451"),
        (answer(500, b""), "500"),
        (answer(503, {"code": -1008, "msg": "overloaded"}), "503"),
        (answer(503, b"[" * 100_000), "503"),
    ],
)
def test_refusals_that_leave_the_pause_to_us(given_answer: Answer, kind: str) -> None:
    outcome = read_answer(given_answer, SYMBOLS, WALL)
    assert isinstance(outcome, Refusal)
    assert (outcome.kind, outcome.pause) == (kind, None)
    assert outcome.reason and len(outcome.reason) < 400
    assert outcome.reason.isprintable()


@pytest.mark.parametrize("code", [-1100, -1121, -1128])
def test_a_request_that_is_wrong_is_hopeless(code: int) -> None:
    outcome = read_answer(answer(400, {"code": code, "msg": "Invalid symbol."}), SYMBOLS, WALL)
    assert isinstance(outcome, Hopeless)
    assert "Invalid symbol" in outcome.reason


def banned(until: float, unit: int = 1_000) -> dict[str, object]:
    return {"code": -1003, "msg": f"Way too many requests; IP banned until {int(until * unit)}."}


BANNED = banned(WALL + 300)
HEADER_DATE = (
    r"(Mon, )?[0-9]{1,12} (Jan|Feb) [0-9]{1,12} [0-9]{1,12}:[0-9]{1,12}(:[0-9]{1,12})?( [+-][0-9]{0,15}| GMT)?"
)
IN_TEN_SECONDS = email.utils.format_datetime(datetime.datetime.fromtimestamp(WALL + 10, datetime.UTC), usegmt=True)


@pytest.mark.parametrize(
    ("given_answer", "pause"),
    [
        (answer(429, b"", retry_after="7"), 7),
        (answer(429, b"", retry_after="0"), 0),
        (answer(429, b"", retry_after=IN_TEN_SECONDS), 10),
        (answer(429, b""), 60),
        (answer(429, b"", retry_after="soon"), 60),
        (answer(429, b"", retry_after="-5"), 60),
        (answer(429, BANNED, retry_after="7"), 300),
        (answer(418, BANNED), 300),
        (answer(418, BANNED, retry_after="301"), 301),
        (answer(418, BANNED, retry_after="7"), 300),
        (answer(418, b""), 120),
        (answer(418, b"", retry_after="259200"), 259_200),
        (answer(418, b"", retry_after=IN_TEN_SECONDS.replace("GMT", "-0000")), 10),
        (answer(418, banned(WALL - 300)), 120),
        (answer(429, banned(WALL - 300)), 60),
        (answer(418, banned(WALL)), 0),
        (answer(418, banned(WALL - 300), retry_after="8"), 8),
        (answer(418, banned(WALL + 300, unit=1)), 300),
        (answer(418, banned(WALL + LONGEST_BAN_SECONDS)), LONGEST_BAN_SECONDS),
        (answer(418, b"", retry_after="-1"), 120),
        (answer(418, b"", retry_after="1.5"), 120),
        (answer(418, b"", retry_after="7, 9"), 120),
        (answer(418, b"", retry_after=""), 120),
        (answer(418, b"", retry_after="Thu, 01 Jan 2026 99999999999:00:00 GMT"), 120),
        (answer(418, b"", retry_after="Thu, 01 Jan 2026 00:00:00 +9999999999999"), 120),
        (answer(403, b"<html>", retry_after="30"), 30),
        (answer(503, b"", retry_after="5"), 5),
    ],
)
def test_what_the_exchange_asks_for_is_obeyed(given_answer: Answer, pause: float) -> None:
    outcome = read_answer(given_answer, SYMBOLS, WALL)
    assert isinstance(outcome, Refusal)
    assert outcome.pause == pytest.approx(pause, abs=1e-6)
    for chance in (0.0, 0.999):
        assert pause < pause_after(outcome, 1, chance) <= pause + 1.2


@pytest.mark.parametrize(
    "given_answer",
    [
        answer(418, b"", retry_after="999999999"),
        answer(418, b"", retry_after="9" * 5_000),
        answer(418, b"", retry_after="Wed, 01 Jan 3000 00:00:00 GMT"),
        answer(418, banned(32_503_680_000)),
        answer(418, banned(32_503_680_000, unit=1)),
        answer(418, banned(32_503_680_000, unit=10**6)),
        answer(503, b"", retry_after="259201"),
    ],
)
def test_what_no_ban_is_as_long_as_is_told_and_tried_again_in_the_end(given_answer: Answer) -> None:
    outcome = read_answer(given_answer, SYMBOLS, WALL)
    assert isinstance(outcome, Refusal)
    assert outcome.pause == LONGEST_BAN_SECONDS == 259_200
    assert "days, which no ban is" in outcome.reason


@given(st.one_of(st.text(), st.from_regex(HEADER_DATE, fullmatch=True)), st.text(), st.sampled_from([418, 429, 403]))
def test_no_wish_of_the_exchange_is_too_strange(retry_after: str, message: str, status: int) -> None:
    outcome = read_answer(answer(status, {"code": -1, "msg": message}, retry_after=retry_after), SYMBOLS, WALL)
    assert isinstance(outcome, Refusal)
    assert outcome.pause is None or 0 <= outcome.pause <= LONGEST_BAN_SECONDS
    assert outcome.reason.isprintable()


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_who_is_told_to_wait_shortly_again_and_again_asks_ever_less_often(pause: float) -> None:
    pauses = [pause_after(Refusal("429", "", pause), consecutive, 0.999) for consecutive in range(1, 20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS, rel=0.01)


@pytest.mark.parametrize("consecutive", [1, 2, 3, 5, 8, 100, 10_000])
def test_pauses_grow_up_to_a_limit_and_are_spread(consecutive: int) -> None:
    refusal = Refusal("500", "unknown")
    full = min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** (min(consecutive, 50) - 1))
    assert pause_after(refusal, consecutive, 0.0) == full / 2
    assert pause_after(refusal, consecutive, 0.5) == full * 0.75
    assert pause_after(refusal, consecutive, 0.999) < full


# settings


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_SYMBOLS", " btcusdt, ETHUSDT,BTCUSDT ,")
    monkeypatch.setenv("TICKHOUSE_BINANCE_URL", "http://127.0.0.1:8080/")
    monkeypatch.setenv("TICKHOUSE_SPEED", "20")
    monkeypatch.setenv("TICKHOUSE_SOURCE", "replay:a b:c.gz")
    settings = ProducerSettings()
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.binance_url == "http://127.0.0.1:8080"
    assert settings.speed_factor == 20.0
    assert str(settings.replay_file) == "a b:c.gz"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SYMBOLS", ","), ("SYMBOLS", "BTC USDT"), ("SYMBOLS", "A" * 33), ("SPEED", "0"), ("SPEED", "-1"),
        ("SPEED", "fast"), ("SPEED", "nan"), ("SPEED", "inf"), ("SPEED", "1e400"), ("SOURCE", "kraken"),
        ("SOURCE", "replay:"), ("STEP_MS", "0"), ("STEP_MS", "0.5"), ("BINANCE_URL", "ftp://x"), ("BINANCE_URL", "x"),
        ("REPLAY_TIMESTAMPS", "then"),
    ],
)  # fmt: skip
def test_a_setting_without_a_meaning_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TICKHOUSE_{name}", value)
    with pytest.raises(ValidationError) as caught:
        ProducerSettings()
    assert [fault["loc"] for fault in caught.value.errors()] == [(name.lower(),)]


def test_what_a_server_answers_cannot_speak_to_the_terminal() -> None:
    progress = Progress("binance")
    progress.change("waiting", "no price:\n\x1b[2J\x9b31m\u202e evil\x00")
    assert progress.note == "no price: \ufffd[2J\ufffd31m\ufffd evil\ufffd"
    progress.fail("\x1b]0;title\x07")
    assert progress.error == "\ufffd]0;title\ufffd"
