"""Checks of the documentation as it is built: its links, and its pages in a real browser."""

import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    return path or (ON_MACOS if Path(ON_MACOS).exists() else None)
