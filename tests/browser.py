"""A real browser without a window, for what people open in one; and for the pictures in the documents."""

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

# Alone: it asks nobody for updates, and knows nothing of an earlier run.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync --disable-default-apps"
)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Chromium with a profile of its own, which ends with the block; its console and its requests are kept."""
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
    """From now on the window is so large, and the person likes it light or dark."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wish = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish]})


def picture(driver: Chrome) -> bytes:
    """What is to be seen in the window now, as PNG."""
    return b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"])


def console(driver: Chrome) -> list[str]:
    """What the browser has to complain about, since it was last asked."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: Chrome) -> list[str]:
    """Every address that was asked for, since this was last asked."""
    events: Iterator[Any] = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
