"""The report of an audit in a real browser: read by keyboard, by axe, in both schemes, without network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.audit import audit_anyset
from pipeline.workspace import Silent
from tests.browser import axe, chromium
from tests.unit.test_audit_report import EVIL, make
from tests.unit.test_audit_voted import votes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.real

ROWS = 4000
IMAGES = 200
TYPES = ("SSS", "SSU", "SUU", "USU", "UUU")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on four thousand rows, with votes, suspects, copies, problems and texts made to break it."""
    changes: list[dict[str, Any]] = []
    for n in range(ROWS):
        kind = TYPES[n % 5]
        side = "s" if kind.startswith("S") else "u"
        changes.append(
            {
                "type": kind,
                "image": f"hate/gender/{side}_{n % IMAGES}.png",
                "query": f"How can I prevent what stands at number {n % 900}?",
                "response": "I can't help with that, because it would hurt somebody.",
                "split": "train" if n % 3 else "test",
                "subcategory": f"class_{n % 19}",
            }
        )
    changes[0] |= {"query": EVIL, "caption": EVIL, "response": EVIL, "licence": EVIL}
    changes[7] |= {"type": "XXX"}
    folder = make(tmp_path_factory.mktemp("report"), *changes)
    lines = [
        f"{n},model{k},{'safe' if (TYPES[n % 5] == 'SSS') != ((n + k) % 11 == 0) else 'unsafe'},m{k}"
        for n in range(600)
        for k in range(3)
    ]
    out = folder / "audit"
    cast = votes(folder, *lines, head="item_id,annotator,value,family")
    audit_anyset(str(folder), out, Silent(), votes=cast)
    return out / "index.html"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on few rows with every section that there is."""
    folder = make(
        tmp_path_factory.mktemp("whole"),
        *(
            {"type": TYPES[n % 5], "split": "train" if n % 2 else "test", "query": "Is this legal?"}
            for n in range(60)
        ),
    )
    out = folder / "audit"
    audit_anyset(str(folder), out, Silent(), against=str(folder), test_itself=True)
    return out / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def opened(browser: Browser, report: Path, **options: Any) -> tuple[Page, list[str]]:
    page = browser.new_page(**options)
    wrong: list[str] = []
    page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(report.as_uri())
    return page, wrong


@pytest.mark.parametrize(
    ("which", "scheme", "width"),
    [("report", "light", 1280), ("report", "dark", 400), ("whole", "dark", 1280), ("whole", "light", 400)],
)
def test_axe_finds_nothing_serious_with_everything_unfolded(
    browser: Browser, request: pytest.FixtureRequest, which: str, scheme: str, width: int
) -> None:
    page, wrong = opened(
        browser, request.getfixturevalue(which), viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert wrong == []
    page.close()


def test_pictures_are_blurred_until_they_are_pressed_by_key(browser: Browser, report: Path) -> None:
    page, wrong = opened(browser, report, viewport={"width": 1280, "height": 900})
    button = page.locator("#gallery ~ .cards button.picture").first
    image = button.locator("img")
    button.scroll_into_view_if_needed()
    page.wait_for_function("i => i.complete && i.naturalWidth > 0", arg=image.element_handle())
    assert "blur" in image.evaluate("e => getComputedStyle(e).filter")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert image.evaluate("e => getComputedStyle(e).filter") == "none"
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert wrong == []
    page.close()


def test_what_a_row_holds_is_shown_and_never_run(browser: Browser, report: Path) -> None:
    page, wrong = opened(browser, report)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.locator("img[src='x']").count() == 0
    assert wrong == []
    page.close()


def test_every_link_of_the_page_leads_somewhere_in_it(browser: Browser, report: Path) -> None:
    page, _ = opened(browser, report)
    hrefs = page.eval_on_selector_all("a[href]", "links => links.map(a => a.getAttribute('href'))")
    assert len(hrefs) > 15
    assert [h for h in hrefs if not h.startswith("#") or not page.locator(f"[id='{h[1:]}']").count()] == []
    page.close()


def test_a_report_on_four_thousand_rows_is_not_large(report: Path) -> None:
    assert report.stat().st_size < 25_000_000
