"""Debian's Chromium, driven by Playwright, and axe, which looks for what keeps people out of a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where it cannot be had and need not be."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    missing = [
        *([] if found else ["chromium"]),
        *([] if find_spec("axe_playwright_python") else ["axe-playwright-python"]),
    ]
    if missing and not os.environ.get("HOLISAFE_REQUIRE_ALL"):
        pytest.skip(f"no {' and no '.join(missing)}; apt-get install chromium, requirements-dev.lock")
    assert not missing, f"no {' and no '.join(missing)}, and here nothing may be skipped"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def axe(page: Page) -> list[str]:
    """What axe finds on a page that is serious or worse."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text("utf-8")
    page.evaluate(script)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:120]}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
