"""Dagster's own pages and the board on a whole stack, used as by someone who has read nothing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from orchestration.board.panels import graph_url
from orchestration.defs.supervisor_cursor import OBSERVE_SECONDS
from tests.browser.test_board import drawn, pick
from tests.running_stack import stack, status, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.whole_machine]
LOCATION = "tickhouse"
START_SECONDS = 240.0
PAGE_SECONDS = 60.0
RUN_SECONDS = 180.0


@dataclass(frozen=True)
class Pages:
    """Dagster's pages of a running stack in a browser."""

    browser: Chrome
    url: str

    def open(self, path: str, sentence: str) -> None:
        """Open a page and wait until it says the sentence."""
        self.browser.get(self.url + path)
        self.until_said(sentence)

    def text(self) -> str:
        """All that the page says."""
        return self.browser.find_element(By.TAG_NAME, "body").text

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PAGE_SECONDS) -> Any:
        """Wait until the condition holds; a page that is drawn anew meanwhile is looked at again."""
        wait = WebDriverWait(self.browser, seconds, 0.3, [StaleElementReferenceException])
        return wait.until(lambda _: condition(), what)

    def until_said(self, sentence: str, seconds: float = PAGE_SECONDS) -> None:
        """Wait until the page says the sentence."""
        self.until(lambda: sentence in self.text(), f"the page does not say: {sentence}", seconds)

    def press(self, label: str) -> None:
        """Press a button as soon as it can be."""

        def pressed() -> bool:
            for button in self.browser.find_elements(By.XPATH, f"//button[normalize-space()='{label}']"):
                if button.is_displayed() and button.is_enabled():
                    try:
                        button.click()
                    except ElementClickInterceptedException:
                        return False
                    return True
            return False

        self.until(pressed, f"there is no button to press: {label}")

    def follow(self, label: str) -> None:
        """Follow a link, wherever on the page it is, until the address is another one, which may take a moment."""
        before = self.browser.current_url

        def followed() -> bool:
            if self.browser.current_url != before:
                return True
            for link in self.browser.find_elements(
                By.XPATH, f"//*[self::a or self::span][normalize-space()='{label}']"
            ):
                if link.is_displayed():
                    link.click()
                    break
            return self.browser.current_url != before

        self.until(followed, f"there is no link to follow: {label}")

    def launch(self, job: str, config: str = "") -> None:
        """Launch a job from its launchpad, with its defaults or a configuration, and wait until it has succeeded."""
        path = f"/locations/{LOCATION}/jobs/{job}/playground"
        self.open(f"{path}/setup?config={quote(config)}" if config else path, "Launch Run")
        self.press("Launch Run")
        self.until(lambda: "/runs/" in self.browser.current_url, "no run was launched")
        self.until_ended()

    def until_ended(self) -> None:
        """Wait on a run's page until the run has succeeded."""
        self.until(lambda: "Success" in self.text() or "Failure" in self.text(), "the run does not end", RUN_SECONDS)
        assert "Failure" not in self.text(), self.text()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, tools: Path, guard: Callable[[Path], None]
) -> Iterator[tuple[Path, Path, subprocess.Popen[bytes]]]:
    """A stack on the simulator that has loaded its first z-scores: its home, its output and its process."""
    folder = tmp_path_factory.mktemp("stack")
    home, output = folder / "home", folder / "up.log"
    guard(home)
    with stack(home, output, "--source", "simulator", "--symbols", "BTCUSDT,ETHUSDT") as up:
        wait_until(lambda seen: any(one["documents"] for one in seen["load"].values()), home, up, output, START_SECONDS)
        yield home, output, up


def test_a_stream_is_launched_and_watched_in_dagster(
    running: tuple[Path, Path, subprocess.Popen[bytes]], browser: Chrome, screenshot: Callable[[str], None]
) -> None:
    home, output, up = running
    pages = Pages(browser, status(home)["dagster_url"])
    # As the board links to it: with its groups open.
    pages.open(graph_url(""), "zscore_30s")
    assert "moving_stats" in pages.text()
    screenshot("dagster-graph")
    pages.open("/assets/zscores?view=lineage", "zscore_1h")
    time.sleep(3)  # the graph is laid out
    screenshot("dagster-lineage")

    pages.launch("stop_streams", "ops:\n  stop:\n    config:\n      streams: [moving]\n")
    assert status(home)["streams"]["moving"]["state"] == "stopped"
    pages.launch("launch_streams")
    screenshot("dagster-launched")
    assert wait_until(lambda seen: seen["streams"]["moving"]["state"] == "running", home, up, output, 60)

    pages.open("/assets/moving_stats", "Materialize")
    pages.press("Materialize")
    pages.until_said("Launched run")
    pages.follow("View")
    pages.until_ended()
    assert "moving_stream" in pages.text()
    pages.open("/assets/moving_stats", "Latest materialization")
    time.sleep(2)  # its metadata come after it
    screenshot("dagster-materialised")

    pages.open("/assets/zscores?view=checks", "Execute all")
    pages.press("Execute all")
    pages.until_said("Launched run")
    pages.follow("View")
    pages.until_ended()
    pages.until(lambda: pages.text().count("ASSET_CHECK_EVALUATION") >= 7, "not all checks were done")

    pages.launch("check_everything")
    time.sleep(OBSERVE_SECONDS + 15)  # the table has got new versions, and was observed
    pages.open("/assets/zscores?view=checks", "no_duplicates")
    time.sleep(3)  # the results come after the names
    screenshot("dagster-checks")
    assert "Not evaluated" not in pages.text() and "reconcile" in pages.text()
    assert shown_results(status(home)["dagster_url"], "zscores") >= {"fresh", "no_duplicates", "reconcile", "scores"}


def shown_results(url: str, asset: str) -> set[str]:
    """The checks of an asset of which Dagster's pages show a result: those of its latest materialisation."""
    query = (
        f'{{assetNodeOrError(assetKey: {{path: ["{asset}"]}}) {{... on AssetNode {{assetChecksOrError '
        "{... on AssetChecks {checks {name executionForLatestMaterialization {status}}}}}}}"
    )
    request = Request(f"{url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        found = json.load(answer)["data"]["assetNodeOrError"]["assetChecksOrError"]["checks"]
    return {check["name"] for check in found if check["executionForLatestMaterialization"]}


def test_the_board_follows_the_simulator(
    running: tuple[Path, Path, subprocess.Popen[bytes]], browser: Chrome, screenshot: Callable[[str], None]
) -> None:
    home, _, _ = running
    pages = Pages(browser, status(home)["board_url"])
    pages.open("", "SIMULATED")
    pages.until(lambda: drawn(browser, "price"), "no prices are drawn")
    before = drawn(browser, "price")["price"]["x"][-1]
    pick(browser, "window", "5m")
    pages.until(lambda: "5m average" in drawn(browser, "price"), "the window was not changed")
    browser.get(f"{browser.current_url.partition('?')[0]}?symbol=ETHUSDT&window=30s")
    pages.until(lambda: "30s average" in drawn(browser, "price"), "no prices of the other symbol")
    pages.until(lambda: drawn(browser, "price")["price"]["x"][-1] > before, "the chart stands still")
    screenshot("board-live")
