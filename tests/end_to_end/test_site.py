"""The documentation as a site: built strictly, links that lead somewhere, the whole API, nothing remote."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser import chromium
from tests.conftest import REPOSITORY
from tests.serving import serving

pytestmark = pytest.mark.build


class Page(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.anchors.add(told.get("id", ""))
        if tag == "a" and "href" in told:
            self.links.add(told["href"])
        elif tag == "link" and told.get("rel") not in ("canonical", "next", "prev"):
            self.loads.add(told["href"])
        elif "src" in told:
            self.loads.add(told["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", folder],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_document_is_a_page(pages: dict[Path, Page], site: Path) -> None:
    docs = REPOSITORY / "docs"
    for path in docs.rglob("*.md"):
        assert site / path.relative_to(docs).with_suffix(".html") in pages


def test_links_within_the_site_lead_somewhere(pages: dict[Path, Page], site: Path) -> None:
    lost = []
    for path, page in pages.items():
        if path.name == "404.html":  # is served at any address
            continue
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in there:
                lost.append(f"{path.relative_to(site)}: {link}")
    assert not lost


def test_no_page_loads_anything_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert not {load for page in pages.values() for load in page.loads if urlsplit(load).netloc}


def public_modules() -> Iterator[str]:
    """Packages of `schemas` and `pipeline`, and the modules directly below these two."""
    for top in ("schemas", "pipeline"):
        for found in pkgutil.walk_packages([str(REPOSITORY / top)], f"{top}."):
            if found.ispkg or found.name.count(".") == 1:
                yield found.name


def test_the_api_has_every_public_name(pages: dict[Path, Page]) -> None:
    found = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "reference"))
    wanted = [
        (module, name)
        for module in public_modules()
        for name in getattr(importlib.import_module(module), "__all__", ())
    ]
    assert len(wanted) > 300
    # A function that is called as its module is has the module's name before its own.
    assert not [
        f"{module}.{name}"
        for module, name in wanted
        if not {f"{module}.{name}", f"{module}.{name}.{name}"} & found
    ]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The site on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(functools.partial(Quiet, directory=str(folder))) as address:
        yield address


def test_pages_render_in_a_browser_and_ask_nobody_else(site: Path) -> None:
    with chromium() as browser, served(site) as home:
        page = browser.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        for path, title, other in (
            ("index.html", "holisafe-pipeline", "h2#what-i-may-want"),
            ("reference/engine.html", "Model calls", "h3[id='pipeline.engine.CallCache']"),
        ):
            page.goto(f"{home}/{path}", wait_until="networkidle")
            assert page.locator("h1").first.inner_text().removesuffix("¶").strip() == title
            assert page.locator("h1").first.is_visible()
            assert page.locator(other).is_visible()
        # Search works, and by what is here.
        page.locator("input.md-search__input").click()
        page.keyboard.type("contrast squares")
        page.locator(".md-search-result__item").first.wait_for()
        assert not errors
        assert not [url for url in asked if not url.startswith((home, "data:", "blob:"))]
