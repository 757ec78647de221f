"""The board in a browser: a real board process on real tables and a real mongod, filled with a random walk."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from pymongo import MongoClient
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from orchestration.local import processes
from orchestration.local.ports import answers, free_port
from orchestration.local.processes import Process
from orchestration.monitoring import alert_log
from orchestration.monitoring.alert_log import Alert
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE
from orchestration.settings import Endpoints, write_endpoints
from tests.browser.conftest import DESKTOP
from tests.stored import STEP_MS, Symbol, load_all
from tickhouse import files
from tickhouse.contract.names import WINDOWS
from tickhouse.contract.topology import JOBS

pytestmark = pytest.mark.integration

SECONDS = 60
NOWHERE = "127.0.0.1:1"
PHONES = ((390, 844), (360, 640))


@dataclass(frozen=True)
class Board:
    """A board that runs, and what it shows."""

    url: str
    home: Path
    lakehouse: Path
    mongo_uri: str
    bitcoin: Symbol
    process: Process

    def store(self, ticks: int) -> None:
        """Store so many further ticks of BTCUSDT, as the streams and the load would."""
        self.bitcoin.advance(ticks)
        load_all(self.lakehouse, self.mongo_uri)


def _text(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def say_how_it_is(home: Path, alive: Process, state: str) -> None:
    """Heartbeats and records of a producer and streams of which `alive` stands for each process."""
    now = time.time()
    for name in (*JOBS, "producer"):
        heartbeat = {
            "pid": alive.pid, "state": state, "queries": {}, "written_at": _text(now + 3_600),
            "last_event_time": _text(now), "last_timestamp": _text(now), "source": "binance",
        }  # fmt: skip
        files.write_json(processes.run_folder(home) / f"{name}.heartbeat.json", heartbeat)
        files.write_json(home / "run" / f"{name}.json", asdict(replace(alive, name=name)))


@pytest.fixture(scope="module")
def board(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory, guard: Callable[[Path], None]) -> Iterator[Board]:
    home = tmp_path_factory.mktemp("board")
    guard(home)
    lakehouse = home / "lakehouse"
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri)
    for database in (DATABASE, RECORDS_DATABASE):
        client.drop_database(database)
    client.close()
    now = int(time.time() * 1_000) // STEP_MS * STEP_MS
    bitcoin = Symbol(lakehouse, "BTCUSDT", now - 3_000 * STEP_MS)
    for symbol, ticks in (
        (bitcoin, 2_500),
        (Symbol(lakehouse, "ETHUSDT", now - 1_000 * STEP_MS), 1_000),
        (Symbol(lakehouse, "SHIBUSDT", now - 600_000), 1_000),
    ):
        symbol.advance(ticks)
    load_all(lakehouse, mongo_uri)
    write_endpoints(
        home,
        Endpoints(
            kafka_bootstrap=NOWHERE,
            mongo_uri=mongo_uri,
            lakehouse=str(lakehouse),
            checkpoints=str(home / "checkpoints"),
            dagster_url=f"http://{NOWHERE}",
            source="simulator",
            source_note="SIMULATED by a local exchange, as asked",
            symbols=["BTCUSDT", "ETHUSDT"],
        ),
    )
    hostile = "<img src=x onerror=document.title='broken'>"
    at = datetime.datetime.now(datetime.UTC)
    alert_log.append(home, Alert(at=at, key="stream:moving", state="raised", title="Stream moving is down"))
    alert_log.append(home, Alert(at=at, key="stream:moving", state="cleared", title="Stream moving", detail=hostile))
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_")}
    command = [sys.executable, "-m", "orchestration.board", "--home", str(home), "--port", str(port)]
    process = processes.start(home, "board", command, environment)
    try:
        deadline = time.monotonic() + 3 * SECONDS
        while not answers(port):
            assert processes.alive(process), Path(process.log).read_text()
            assert time.monotonic() < deadline, Path(process.log).read_text()
            time.sleep(0.1)
        say_how_it_is(home, process, "running")
        yield Board(f"http://127.0.0.1:{port}/", home, lakehouse, mongo_uri, bitcoin, process)
        assert "Traceback" not in Path(process.log).read_text()
    finally:
        processes.stop(process, 5)


@pytest.fixture(autouse=True)
def quiet_console(browser: Chrome) -> Iterator[None]:
    """Fails a test after which the browser's console has an error in it, and closes the tabs that it has opened."""
    browser.get("about:blank")
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    size(browser, *DESKTOP)
    first = browser.current_window_handle
    yield
    told = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]  # type: ignore[no-untyped-call]
    for handle in browser.window_handles:
        if handle != first:
            browser.switch_to.window(handle)
            browser.close()
    browser.switch_to.window(first)
    assert told == []


def size(browser: Chrome, width: int, height: int, *, theme: str = "light") -> None:
    """Make the page so large, in this theme."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def until(browser: Chrome, condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition holds."""
    return WebDriverWait(browser, SECONDS, 0.1).until(lambda _: condition(), what)


def drawn(browser: Chrome, chart: str) -> dict[str, dict[str, list[float]]]:
    """What a chart shows: x and y of each line by its name; empty before it is drawn."""
    script = """
        const plot = document.querySelector(`#${arguments[0]} .js-plotly-plot`);
        return Object.fromEntries(((plot && plot.data) || []).map(line => [line.name, {x: line.x, y: line.y}]));
    """
    found: dict[str, dict[str, list[float]]] = browser.execute_script(script, chart)
    return found


def range_of(browser: Chrome, chart: str = "price") -> list[float]:
    script = """
        return document.querySelector(`#${arguments[0]} .js-plotly-plot`)._fullLayout.xaxis.range
            .map(end => new Date(typeof end === "string" ? end.replace(" ", "T") + "Z" : end).getTime());
    """
    found: list[float] = browser.execute_script(script, chart)
    return found


def open_board(browser: Chrome, board: Board, query: str = "") -> None:
    """Open the page and wait for its charts."""
    browser.get(board.url + query)
    until(browser, lambda: all(drawn(browser, chart) for chart in ("price", "scores", "waits")), "no charts")


def texts(browser: Chrome, selector: str) -> list[str]:
    """What elements say at one moment: read one by one, some may have been replaced meanwhile."""
    read = """
        return [...document.querySelectorAll(arguments[0])]
            .map(element => (element.innerText ?? element.textContent).trim());
    """
    return list(browser.execute_script(read, selector))


def text(browser: Chrome, identifier: str) -> str:
    (found,) = texts(browser, f"#{identifier}")
    return found


def pick(browser: Chrome, picker: str, label: str) -> None:
    """Pick a window or a stretch."""
    choices = browser.find_elements(By.CSS_SELECTOR, f"#{picker} label")
    next(choice for choice in choices if choice.text == label).click()


def test_it_shows_what_is_stored_and_says_what_it_is(
    browser: Chrome, board: Board, screenshot: Callable[[str], None]
) -> None:
    open_board(browser, board)
    until(browser, lambda: "SIMULATED PRICES" in text(browser, "source"), "not said to be simulated")
    assert "by a local exchange, as asked" in text(browser, "source")
    assert "Prices until" in text(browser, "freshness")
    assert all(result in text(browser, "freshness") for result in ("bands", "z-scores", "higher/lower"))
    assert "UTC" in text(browser, "freshness")
    prices = drawn(browser, "price")
    assert set(prices) == {"lower", "±2σ", "1m average", "price"}
    assert len(prices["price"]["x"]) > 200
    for low, average, high in zip(*(prices[name]["y"] for name in ("lower", "1m average", "±2σ")), strict=True):
        if low is not None:
            assert high - average == pytest.approx(average - low, abs=1e-6)
    assert set(drawn(browser, "scores")) - {"beyond ±5"} == set(WINDOWS)
    assert set(drawn(browser, "waits")) == {"higher", "lower"}
    assert max(drawn(browser, "waits")["higher"]["y"]) <= 20
    streams = text(browser, "streams")
    assert all(name in streams for name in (*JOBS, "producer", "running", "lag"))
    assert "Kafka at 127.0.0.1:1 does not answer" in text(browser, "problems")
    assert browser.title == "tickhouse board"
    assert "<img src=x" in text(browser, "alerts"), "shown as text"
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    link = browser.find_element(By.CSS_SELECTOR, "#elsewhere a").get_attribute("href")
    assert link is not None and link.startswith(f"http://{NOWHERE}/asset-groups?expanded=")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [one for one in loaded if not one.startswith(board.url)] == []
    screenshot("board-desktop-light")
    ink = "return getComputedStyle(document.querySelector('#price .xtick text')).fill"
    before = browser.execute_script(ink)
    size(browser, *DESKTOP, theme="dark")
    until(browser, lambda: browser.execute_script(ink) != before, "the charts stay light")
    screenshot("board-desktop-dark")


def shown_numbers(browser: Chrome) -> tuple[str, list[float]]:
    """The tick that the numbers are said to be of, and price, average, deviation and z-score."""
    tick, *numbers = texts(browser, "#numbers dd")
    return tick, [float(number.replace(",", "").replace("−", "-")) for number in numbers]


def test_the_numbers_shown_belong_together_while_one_table_lags(browser: Chrome, board: Board) -> None:
    open_board(browser, board, "?window=30s")
    until(browser, lambda: len(shown_numbers(browser)[1]) == 4, "no numbers")
    before = text(browser, "newest")
    # Prices and statistics are stored, z-scores are not loaded yet.
    board.bitcoin.advance(150)
    until(browser, lambda: text(browser, "newest") != before, "no newer price")
    tick, (price, average, deviation, z_score) = shown_numbers(browser)
    assert z_score == pytest.approx((price - average) / deviation, abs=0.02)
    assert tick not in text(browser, "newest"), "the newest price is of another tick"
    load_all(board.lakehouse, board.mongo_uri)
    until(browser, lambda: shown_numbers(browser)[0] != tick, "the numbers stand still")
    tick, (price, average, deviation, z_score) = shown_numbers(browser)
    assert z_score == pytest.approx((price - average) / deviation, abs=0.02)
    assert tick in text(browser, "newest")


def test_both_halves_of_the_waits_are_labelled_alike(browser: Chrome, board: Board) -> None:
    open_board(browser, board)
    assert texts(browser, "#waits .ytick text, #waits .y2tick text") == ["0 s", "10 s", "20 s", "10 s", "20 s"]


def test_another_symbol_window_and_stretch(browser: Chrome, board: Board) -> None:
    open_board(browser, board)
    pick(browser, "window", "5m")
    until(browser, lambda: "5m average" in drawn(browser, "price"), "the window was not changed")
    until(browser, lambda: "window=5m" in browser.current_url, "the address does not say so")
    assert "average 5m" in text(browser, "numbers")
    pick(browser, "span", "5 min")
    until(browser, lambda: range_of(browser)[1] - range_of(browser)[0] == 300_000, "the stretch was not changed")
    browser.find_element(By.ID, "symbol").click()
    options = until(
        browser,
        lambda: browser.find_elements(By.CSS_SELECTOR, ".dash-dropdown-content label"),
        "no symbols are offered",
    )
    assert [option.text for option in options] == ["BTCUSDT", "ETHUSDT", "SHIBUSDT"]
    options[1].click()
    until(browser, lambda: max(drawn(browser, "price")["price"]["y"]) < 3_000, "the symbol was not changed")
    until(browser, lambda: "symbol=ETHUSDT" in browser.current_url, "the address does not say so")
    browser.back()
    until(browser, lambda: max(drawn(browser, "price")["price"]["y"]) > 50_000, "back does not go back")


def test_the_keyboard_is_enough(browser: Chrome, board: Board) -> None:
    open_board(browser, board)
    browser.find_element(By.CSS_SELECTOR, "#window input:checked").send_keys(Keys.ARROW_RIGHT)
    until(browser, lambda: "5m average" in drawn(browser, "price"), "the arrow key changes nothing")


def test_an_address_opens_its_view(browser: Chrome, board: Board) -> None:
    open_board(browser, board, "?symbol=ETHUSDT&window=1h&span=1h")
    assert "1h average" in drawn(browser, "price")
    assert max(drawn(browser, "price")["price"]["y"]) < 3_000
    assert range_of(browser)[1] - range_of(browser)[0] == 3_600_000
    browser.get(board.url + "?symbol=<script>&window=x&span=%00")
    until(browser, lambda: "1m average" in drawn(browser, "price"), "a wrong address is no usual view")


def test_it_moves_in_two_tabs(browser: Chrome, board: Board, screenshot: Callable[[str], None]) -> None:
    open_board(browser, board)
    first = browser.current_window_handle
    before = drawn(browser, "price")["price"]["x"][-1]
    scores_before = drawn(browser, "scores")["1m"]["x"][-1]
    browser.execute_script("window.unharmed = true")
    browser.switch_to.new_window("tab")
    size(browser, *DESKTOP)
    open_board(browser, board, "?window=30s")
    board.store(200)
    until(browser, lambda: drawn(browser, "price")["price"]["x"][-1] == before + 200 * STEP_MS, "no new prices")
    browser.switch_to.window(first)
    until(browser, lambda: drawn(browser, "price")["price"]["x"][-1] == before + 200 * STEP_MS, "the tab stands still")
    until(browser, lambda: drawn(browser, "scores")["1m"]["x"][-1] == scores_before + 200 * STEP_MS, "no new z-scores")
    assert range_of(browser)[1] == before + 200 * STEP_MS
    assert browser.execute_script("return window.unharmed") is True, "the page was not loaded anew"
    screenshot("board-moved")


def test_a_zoom_stays_until_a_double_click(browser: Chrome, board: Board, screenshot: Callable[[str], None]) -> None:
    size(browser, *DESKTOP)
    open_board(browser, board)
    whole = range_of(browser)
    surface = browser.find_element(By.CSS_SELECTOR, "#price .nsewdrag")
    drag = ActionChains(browser).move_to_element_with_offset(surface, -100, 0).click_and_hold()
    drag.move_by_offset(60, 0).move_by_offset(60, 0).release().perform()
    until(browser, lambda: range_of(browser, "scores") == range_of(browser), "the other charts do not follow")
    zoomed = range_of(browser)
    assert whole[0] < zoomed[0] < zoomed[1] < whole[1]
    before = drawn(browser, "price")["price"]["x"][-1]
    board.store(50)
    until(browser, lambda: drawn(browser, "price")["price"]["x"][-1] > before, "no new prices")
    assert range_of(browser) == range_of(browser, "waits") == pytest.approx(zoomed, abs=1)
    screenshot("board-zoomed")
    ActionChains(browser).double_click(surface).perform()
    until(browser, lambda: range_of(browser)[1] - range_of(browser)[0] == 900_000, "a double click does not end it")
    until(browser, lambda: range_of(browser, "waits") == range_of(browser), "the others stay behind")


def test_stale_and_missing_prices_are_said(browser: Chrome, board: Board) -> None:
    open_board(browser, board, "?symbol=SHIBUSDT")
    until(browser, lambda: "min ago · stale" in text(browser, "freshness"), "not said to be stale")
    # Slowly: the picker of symbols, a script of its own, comes last then, and must still take the one it was given.
    browser.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 20})
    try:
        browser.get(board.url + "?symbol=DOGEUSDT")
        until(browser, lambda: browser.find_elements(By.ID, "symbol"), "no picker")
    finally:
        browser.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 1})
    until(browser, lambda: "Nothing yet" in text(browser, "freshness"), "not said to be missing")
    (charts,) = texts(browser, "main")
    assert "No prices of DOGEUSDT" in charts
    assert "No z-scores of DOGEUSDT" in charts


@pytest.mark.parametrize(("width", "height"), PHONES)
def test_a_phone_needs_no_scrolling_sideways(
    browser: Chrome, board: Board, screenshot: Callable[[str], None], width: int, height: int
) -> None:
    size(browser, width, height, theme="dark" if width == 390 else "light")
    open_board(browser, board)
    time.sleep(1)
    wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide == [width, width]
    screenshot(f"board-phone-{width}")
    browser.execute_script("document.querySelector('.card.scores').scrollIntoView()")
    screenshot(f"board-phone-{width}-scores")


def test_a_stopped_stack_is_said(browser: Chrome, board: Board) -> None:
    open_board(browser, board)
    say_how_it_is(board.home, replace(board.process, pid=999_999_999), "stopped")
    try:
        until(browser, lambda: "the stack is stopped" in text(browser, "freshness"), "not said to be stopped")
        assert "stopped" in text(browser, "streams")
    finally:
        say_how_it_is(board.home, board.process, "running")


def test_no_other_site_gets_at_it(board: Board) -> None:
    assert requests.get(board.url, headers={"Host": "elsewhere.example"}, timeout=5).status_code == 421
    answer = requests.get(board.url, timeout=5)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "http:" not in answer.text.replace('"dash_version_url"', "")
    odd = {"symbol": "'; DROP TABLE prices; --", "window": ["1m"], "span": {"a": 1}}
    callbacks = requests.get(f"{board.url}_dash-dependencies", timeout=5).json()
    (output,) = (callback["output"] for callback in callbacks if "address.search" in callback["output"])
    question = {
        "output": output,
        "outputs": [
            dict(zip(("id", "property"), name.split("."), strict=True)) for name in output.strip(".").split("...")
        ],
        "inputs": [
            {"id": "address", "property": "search", "value": 5},
            *({"id": name, "property": "value", "value": value} for name, value in odd.items()),
        ],
        "state": [{"id": "symbol", "property": "options", "value": 7}],
        "changedPropIds": ["symbol.value"],
    }
    answer = requests.post(f"{board.url}_dash-update-component", json=question, timeout=5)
    assert answer.status_code == 200
    assert json.loads(answer.text)["response"]["symbol"]["value"] == "BTCUSDT"
