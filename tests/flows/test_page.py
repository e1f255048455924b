"""The report of a real run in a real browser: sorting, hiding, a picture enlarged, by keyboard, and without scripts."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By

from storage.artifact import Artifact
from tasks.inputs.stores import latents_of, prototypes_of
from tests.flows.conftest import IPC, Result

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--no-first-run",
)
NUM_METHODS, NUM_CLASSES = 2, 10
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here (Debian: chromium, chromium-driver)"
)


@contextmanager
def browser(**preferences: Any) -> Iterator[Chrome]:
    """A headless Chromium with a new, empty profile, that keeps its console and its requests."""
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in (*QUIET, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.add_experimental_option("prefs", preferences)
        driver = Chrome(options, ChromeService(str(DRIVER)))
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture(scope="module")
def report(finished: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page alone in a folder, as it is sent to somebody."""
    page = finished[0] / "digits" / "report" / "report" / "report.html"
    return Path(shutil.copy(page, tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


@pytest.fixture
def page(chrome: Chrome, report: Path) -> Iterator[Chrome]:
    """The page, just opened. At the end nothing has been said on the console, and nothing asked of any server."""
    chrome.get(report.as_uri())
    yield chrome
    assert not chrome.get_log("browser")
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert report.as_uri() in sent
    assert {url for url in sent if not url.startswith(("data:", "chrome:"))} == {report.as_uri()}


def named(page: Chrome, name: str) -> Any:
    """The one button that is seen and read out by this name."""
    found = [b for b in page.find_elements(By.TAG_NAME, "button") if b.is_displayed() and b.accessible_name == name]
    assert len(found) == 1, f"{len(found)} buttons {name!r}"
    return found[0]


def rows_of(page: Chrome) -> list[list[str]]:
    """The cells of the methods' table, of the rows that are seen."""
    rows = page.find_elements(By.CSS_SELECTOR, "table.sortable tr[data-method]")
    return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows if row.is_displayed()]


@pytest.mark.parametrize("column", ["method", "W2", "n_eff"])
def test_the_table_is_sorted_by_any_column(page: Chrome, column: str) -> None:
    heads = page.find_elements(By.CSS_SELECTOR, "table.sortable th")
    at = [head.text.split()[0] for head in heads].index(column)
    orders = {}
    for _ in range(2):
        heads[at].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        orders[heads[at].get_attribute("aria-sort")] = [row[at] for row in rows_of(page)]
    of = str if column == "method" else float
    assert len(set(orders["ascending"])) == NUM_METHODS, "else any order would do"
    assert orders["ascending"] == sorted(orders["ascending"], key=of)
    assert orders["descending"] == orders["ascending"][::-1]


def test_a_method_is_hidden_and_shown_again(page: Chrome) -> None:
    (box,) = [b for b in page.find_elements(By.CSS_SELECTOR, "input") if b.accessible_name == "random"]
    title = page.find_element(By.CSS_SELECTOR, "section[data-method=random] h3")
    assert title.is_displayed()
    box.send_keys(Keys.SPACE)
    assert [row[0] for row in rows_of(page)] == ["ddoq"] and not title.is_displayed()
    box.send_keys(Keys.SPACE)
    assert len(rows_of(page)) == NUM_METHODS and title.is_displayed()


def test_a_picture_is_enlarged_with_its_way_and_neighbours(page: Chrome, finished: tuple[Path, Result]) -> None:
    small = page.find_element(By.CSS_SELECTOR, "section[data-method=ddoq] figure button")
    small.send_keys(Keys.ENTER)
    dialog = page.find_element(By.TAG_NAME, "dialog")
    assert dialog.is_displayed() and dialog.aria_role == "dialog"
    assert re.fullmatch(r"ddoq, class 0, picture 1, weight [\d.]+", dialog.accessible_name)
    large = dialog.find_element(By.CSS_SELECTOR, ".large img")
    assert large.size["width"] > 5 * small.size["width"]
    steps = dialog.find_elements(By.CSS_SELECTOR, ".way figure")
    assert all(
        page.execute_script("return arguments[0].naturalWidth", s.find_element(By.TAG_NAME, "img")) for s in steps
    )
    told = [step.text for step in steps]
    assert [text.split()[0] for text in told] == ["medoid", "rebuilt", "centroid", "near", "near", "near"]
    distances = [float(text.split()[1]) for text in (told[0], *told[3:])]
    np.testing.assert_allclose(distances, nearest(finished[0] / "digits", "0", 0), atol=0.006)

    named(page, "Next").click()
    assert "picture 2," in dialog.accessible_name
    dialog.send_keys(Keys.ARROW_LEFT)
    assert "picture 1," in dialog.accessible_name
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert page.switch_to.active_element == small
    small.send_keys(Keys.SPACE)
    named(page, "Close").click()
    assert not dialog.is_displayed()


def nearest(links: Path, name: str, k: int) -> list[float]:
    """How far the medoid and the three next images of a class are from its centroid, by the stores."""
    cluster = Artifact.open(links / "prototypes-ddoq-0")
    latents = latents_of(cluster.parents["encode"]).read_class(name).astype(np.float64)
    prototypes = prototypes_of(cluster).read_class(name)
    far = np.sqrt(np.square(latents - prototypes["centroids"][k]).reshape(len(latents), -1).sum(1))
    medoid = int(prototypes["medoids"][k])
    return [far[medoid], *np.sort(np.delete(far, medoid))[:3]]


def test_every_picture_is_a_button_with_a_name(page: Chrome) -> None:
    names = {b.accessible_name for b in page.find_elements(By.CSS_SELECTOR, "figure[data-told] button")}
    assert len(names) == NUM_METHODS * NUM_CLASSES * IPC
    assert all(name.startswith("enlarge ") for name in names)


def test_it_is_read_without_scripts(report: Path) -> None:
    with browser(**{"profile.managed_default_content_settings.javascript": 2}) as driver:
        driver.get(report.as_uri())
        assert not driver.find_elements(By.CSS_SELECTOR, "figure button"), "scripts are off"
        assert not driver.find_element(By.TAG_NAME, "fieldset").is_displayed()
        assert not driver.find_element(By.TAG_NAME, "dialog").is_displayed()
        assert len(rows_of(driver)) == NUM_METHODS
        way = driver.find_element(By.CSS_SELECTOR, "details .way")
        driver.find_element(By.TAG_NAME, "summary").click()
        assert way.is_displayed() and len(way.find_elements(By.TAG_NAME, "img")) == 6
