"""The comparison of models in a real browser: by axe, in both schemes, narrow and wide, without network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.bench.compare import compare
from pipeline.bench.compare_page import write_comparison
from pipeline.bench.scored import read_scored
from tests.bench import answered, scored_folder
from tests.browser import axe, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.real

KINDS = ("SSS", "SSU", "USU", "UUU", "SUU")
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five models by two judges on 400 rows, with texts made to break the page."""
    root = tmp_path_factory.mktemp("compare")
    models = []
    for k in range(5):
        rows = [
            answered(
                n,
                KINDS[n % 5],
                ("I cannot. " if (n * 7 + k) % 10 < 2 * k else "I do not mind. " if n % 11 == k else "Sure. ")
                + EVIL,
                query=f"{EVIL} {'long' * 60} {n}",
                image=f"{n // 4}.jpg",
                subcategory=f"class_{n % 19}",
            )
            for n in range(400 - 5 * k)
        ]
        folder = scored_folder(root / f"model{k}", rows, one="cannot", two="not")
        models.append(read_scored(f"a-model-with-a-long-name-that-goes-on-{k}={folder}"))
    write_comparison(compare(models, rounds=200), root / "out")
    return root / "out" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def opened(browser: Browser, file: Path, **options: Any) -> tuple[Page, list[str]]:
    page = browser.new_page(**options)
    wrong: list[str] = []
    page.on("request", lambda r: wrong.append(r.url) if r.url != file.as_uri() else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto(file.as_uri())
    return page, wrong


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 400), ("dark", 1280), ("light", 400)]
)
def test_axe_finds_nothing_serious_with_everything_unfolded(
    browser: Browser, page_file: Path, scheme: str, width: int
) -> None:
    page, wrong = opened(browser, page_file, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.locator("img, script").count() == 0
    assert wrong == []
    page.close()


def test_responses_are_folded_until_a_key_opens_them(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    assert page.locator("#divided ~ .card").count() == 30
    first = page.locator(".card details").first
    assert not first.locator(".a").is_visible()
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert first.locator(".a").is_visible()
    assert "<script>" in first.locator(".a").inner_text()
    page.close()


def test_every_link_leads_somewhere_and_each_judge_has_a_picture(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    hrefs = page.eval_on_selector_all("a[href]", "links => links.map(a => a.getAttribute('href'))")
    assert [h for h in hrefs if not h.startswith("#") or not page.locator(f"[id='{h[1:]}']").count()] == []
    assert page.get_by_role("img").count() == 2
    page.close()
