"""A headless browser, for tests of what people open in one, and for the pictures in the documents."""

from __future__ import annotations

import contextlib
import json
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

# Isolated: it contacts no update server, and keeps nothing between runs.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync --disable-default-apps"
)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Run Chromium with its own profile while the block lasts; record its console and its requests."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver") or "chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def look(driver: Chrome, width: int, height: int = 800, scheme: str = "light", scale: float = 1) -> None:
    """Set the size of the window, and whether the person prefers light or dark."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wish = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish]})


def picture(driver: Chrome) -> bytes:
    """Return a screenshot of the window as PNG."""
    return b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"])


def console(driver: Chrome) -> list[str]:
    """Return the browser's console messages since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: Chrome) -> list[str]:
    """Return every URL requested since the last call."""
    events: Iterator[Any] = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
