"""The review page in a real browser: by keyboard alone, by two people, and without objections of axe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.review import ReviewSet, open_review_set
from tests.browser import axe, chromium
from tests.review import CLASSES, Running, own_row, own_set, reviewing, vote

if TYPE_CHECKING:
    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.real

ROWS = 34
NASTY = "<script>window.owned=1</script><img src=x onerror='window.owned=1'>\"'>{{ owned }}"


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ReviewSet:
    rows = [own_row(n, caption=None if n % 4 == 1 else f"A street with {n} shops") for n in range(ROWS - 2)]
    rows.append(
        own_row(90, f"{NASTY} What is this?", caption=NASTY, class_key=f"x/{NASTY.replace('/', '|')}")
    )
    rows.append(own_row(91, "What else stands beside number 3?", image=3))
    for one in rows:
        one["votes"] = [vote("text_safe", NASTY, "unsafe"), vote("text_safe", "model-b", "safe")]
    return open_review_set(str(own_set(tmp_path_factory.mktemp("browser"), rows)))


@pytest.fixture(scope="module", name="chromium")
def started() -> Iterator[Chromium]:
    with chromium() as browser:
        yield browser


class Person:
    """Somebody at a browser; everything that goes wrong in it is taken down."""

    def __init__(self, context: BrowserContext, running: Running) -> None:
        self.page: Page = context.new_page()
        self.home = running.url.split("/enter")[0]
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.goto(running.url)

    def _said(self, message: Any) -> None:
        # A refused form is told by its status, which Chromium calls an error.
        if message.type == "error" and "status of 4" not in message.text:
            self.errors.append(message.text)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def row(self) -> str:
        return self.page.locator("input[name=row]").input_value()

    def next(self) -> None:
        """Press Enter, and wait for another screen."""
        screen = self.page.locator("input[name=screen]").input_value()
        self.press("Enter")
        self.page.wait_for_function(
            "was => document.querySelector('input[name=screen]')?.value !== was",
            arg=screen,
        )

    def judge(self, text: str = "s", picture: str = "s", pair: str = "s") -> str:
        """Answer a row by keys, with the picture revealed, and go on."""
        row = self.row()
        for question, key in (("text_safe", text), ("image_safe", picture), ("pair_safe", pair)):
            if question == "image_safe":
                self.press("r", *(["r"] if self.page.locator("#caption").count() else []))
            if self.page.locator(f"#{question}").count():
                self.press(key)
        self.next()
        return row

    def axe(self) -> list[str]:
        """What axe finds that is serious or worse, and sideways scrolling."""
        width = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return [*axe(self.page), *(["scrolls sideways"] if width > 0 else [])]


@contextmanager
def people(chromium: Chromium, running: Running, *names: str, **options: Any) -> Iterator[list[Person]]:
    contexts = [chromium.new_context(viewport={"width": 1280, "height": 900}, **options) for _ in names]
    found = []
    for name, context in zip(names, contexts, strict=True):
        one = Person(context, running)
        one.press("Tab", "Tab", "Tab")
        one.page.locator("#name").focus()
        one.page.keyboard.type(name)
        one.press("Enter")
        one.page.wait_for_url(re.compile("/wishes$|/$"))
        found.append(one)
    yield found
    for one in found:
        assert one.errors == []
        assert not one.page.evaluate("window.owned")
        assert all(url.startswith(one.home) for url in one.asked), "nothing is asked for from elsewhere"
        assert all("token=" not in url for url in one.asked[1:])
    for context in contexts:
        context.close()


def test_thirty_rows_by_keyboard_a_reload_an_undo_and_somebody_who_joins(
    chromium: Chromium, items: ReviewSet, tmp_path: Path
) -> None:
    target = tmp_path / "votes.jsonl"
    with (
        reviewing(items, tmp_path / "r.sqlite", target) as running,
        people(chromium, running, "anna", "ben") as (anna, ben),
    ):
        anna.page.goto(anna.home + "/queue?name=random")
        seen = [anna.judge("s", "u", "u") for _ in range(15)]
        row = anna.row()
        anna.press("s", "u")
        anna.page.reload()
        assert anna.row() == row
        assert anna.page.locator(":checked").count() == 0
        seen += [anna.judge("u", "s", "k") for _ in range(5)]
        anna.press("z")
        anna.page.wait_for_url("**/again*")
        assert anna.row() == seen[-1]
        assert "Taken back" in anna.page.locator("[role=status]").inner_text()
        anna.judge("s", "s", "s")

        ben.page.goto(ben.home + "/queue?name=random")
        assert [ben.judge("s", "s", "s") for _ in range(3)] == seen[:3], "the same rows for both"

        seen += [anna.judge("s", "s", "u") for _ in range(10)]
        assert len(set(seen)) == 30
        anna.press("o")
        anna.page.wait_for_url("**/others*")
        assert "model-b" in anna.page.inner_text("main")
        anna.page.get_by_role("button", name="Stop").focus()
        anna.press("Enter")
        anna.page.wait_for_url("**/stopped")
        assert str(target) in anna.page.locator("[role=status]").inner_text()

        votes = running.desk.store.votes("")
        assert len({v.screen for v in votes if v.reviewer == "anna"}) == 31
        assert sum(v.undone for v in votes) == 3
        assert all(v.gold for v in votes if not v.undone and v.value != "skip")
        lines = [json.loads(line) for line in target.read_text().splitlines()]
        mine = {(v["question"], v["item_id"]): v["value"] for v in lines if v["annotator"] == "anna"}
        wanted = {key: value for key, value in running.desk.own("anna").items() if value != "skip"}
        assert mine == wanted
        assert mine["text_safe", items.item(items.position[int(seen[19])], "text_safe")] == "safe"
        assert len([v for v in lines if v["annotator"] == "ben"]) == 9


def test_the_picture_comes_after_the_text_and_blurred(
    chromium: Chromium, items: ReviewSet, tmp_path: Path
) -> None:
    with (
        reviewing(items, tmp_path / "r.sqlite", tmp_path / "v.jsonl") as running,
        people(chromium, running, "anna") as [anna],
    ):
        page = anna.page
        page.goto(anna.home + "/queue?name=random")
        while page.locator("#caption").count() == 0:
            anna.judge()
        anna.asked.clear()
        image = page.locator(".frame img")
        assert not image.is_visible()
        anna.press("r")
        assert not page.locator("#shown").is_checked(), "nothing is revealed before the text is judged"
        assert [url for url in anna.asked if "/picture/" in url] == []
        anna.press("s")
        page.wait_for_function("() => document.querySelector('.frame img').naturalWidth > 0")
        blur = "getComputedStyle(document.querySelector('.frame img')).filter"
        assert "blur" in page.evaluate(blur)
        caption = page.locator("#caption p")
        assert not caption.is_visible()
        anna.press("r")
        assert caption.is_visible()
        assert "blur" in page.evaluate(blur)
        anna.press("r")
        page.wait_for_function(f"() => {blur} === 'none'")
        anna.press("Escape")
        page.wait_for_function(f"() => {blur} !== 'none'")
        anna.press("1", "u")
        assert page.locator("[name=text_safe][value=unsafe]").is_checked()
        anna.press("2", "k", "3", "u", "n")
        page.keyboard.type("such a note")
        anna.next()
        last = running.desk.store.last("anna", "")
        assert {v.question: v.value for v in last} == {
            "text_safe": "unsafe",
            "image_safe": "skip",
            "pair_safe": "unsafe",
        }
        assert {(v.note, v.picture) for v in last} == {("such a note", True)}


def test_it_works_without_scripts_by_tab_space_and_arrows(
    chromium: Chromium, items: ReviewSet, tmp_path: Path
) -> None:
    with (
        reviewing(items, tmp_path / "r.sqlite", tmp_path / "v.jsonl") as running,
        people(chromium, running, "anna", java_script_enabled=False) as [anna],
    ):
        page = anna.page
        page.goto(anna.home + "/queue?name=random")
        page.locator("[name=text_safe]").first.focus()
        anna.press("Space")
        assert page.locator("[name=text_safe][value=safe]").is_checked()
        if page.locator("#caption").count():
            anna.press("Tab", "Enter")
        anna.press("Tab", "Space")
        assert page.locator("#shown").is_checked()
        anna.press("Tab", "Space", "ArrowDown")
        assert page.locator("[name=image_safe][value=unsafe]").is_checked()
        anna.press("Tab", "Space", "Tab", "Tab", "Enter")
        page.wait_for_selector("text=Kept.")
        assert [(v.value, v.picture) for v in running.desk.store.votes("")] == [
            ("safe", True), ("unsafe", True), ("safe", True),
        ]  # fmt: skip


def test_keys_are_letters_where_somebody_turned_them_off(
    chromium: Chromium, items: ReviewSet, tmp_path: Path
) -> None:
    with (
        reviewing(items, tmp_path / "r.sqlite", tmp_path / "v.jsonl") as running,
        people(chromium, running, "anna") as [anna],
    ):
        anna.page.goto(anna.home + "/wishes")
        anna.page.get_by_label("Single keys answer").uncheck()
        anna.page.get_by_label(CLASSES[0], exact=True).check()
        anna.page.get_by_role("button", name="Keep").click()
        anna.page.goto(anna.home + "/queue?name=random")
        anna.press("s", "u")
        assert anna.page.locator(":checked").count() == 0
        assert CLASSES[0] not in items.classes[items.position[int(anna.row())]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(
    chromium: Chromium, items: ReviewSet, tmp_path: Path, scheme: str
) -> None:
    nasty = next(at for at in range(ROWS) if NASTY in items.row(at)["query"])
    suspect = [("pair_safe", str(items.ids[nasty]))]
    with (
        reviewing(
            items, tmp_path / "r.sqlite", tmp_path / "v.jsonl", cap=4, suspects=[(i, q) for q, i in suspect]
        ) as running,
        people(chromium, running, "anna", color_scheme=scheme) as [anna],
    ):
        page, found = anna.page, {}

        def look(name: str) -> None:
            for width in (1280, 400):
                page.set_viewport_size({"width": width, "height": 800})
                if told := anna.axe():
                    found[f"{name}, {width} wide"] = told

        for name in ("name", "wishes", "help", ""):
            page.goto(f"{anna.home}/{name}")
            look(name or "home")
        page.goto(anna.home + "/queue?name=suspects")
        assert NASTY in page.inner_text("blockquote")
        look("a row")
        anna.press("s", "r")
        assert page.locator("#caption p").inner_text() == NASTY
        anna.press("r")
        page.wait_for_timeout(300)
        look("a picture")
        page.evaluate("document.querySelectorAll('[required]').forEach(e => e.required = false)")
        anna.next()
        look("open questions")
        anna.judge()
        look("the end of a queue")
        anna.press("o")
        page.wait_for_url("**/others*")
        assert NASTY in page.inner_text("table >> nth=0")
        look("what others said")
        page.goto(anna.home + "/queue?name=random")
        anna.judge()
        look("a row after another")
        page.goto(anna.home)
        look("home with votes")
        page.goto(anna.home + "/queue?name=nonsense")
        look("an error")
        page.goto(anna.home + "/queue?name=random")
        for _ in range(2):
            anna.judge()
        assert "enough for today" in page.inner_text("h1")
        look("enough")
        page.get_by_role("button", name="Stop").click()
        page.wait_for_url("**/stopped")
        look("stopped")
        assert found == {}
        page.evaluate("document.documentElement.removeAttribute('lang')")
        assert anna.axe(), "axe looks at the page"


def test_another_page_can_neither_read_nor_send(chromium: Chromium, items: ReviewSet, tmp_path: Path) -> None:
    """A page of another origin, in the browser that has the cookie."""
    (tmp_path / "evil.html").write_text(
        "<form method=post action='TARGET/stop'><input name=csrf value=x><button>go</button></form>"
        "<img id=i src='TARGET/favicon.ico'><iframe id=f src='TARGET/'></iframe>"
    )
    with (
        reviewing(items, tmp_path / "r.sqlite", tmp_path / "v.jsonl") as running,
        people(chromium, running, "anna") as [anna],
    ):
        evil = tmp_path / "evil.html"
        evil.write_text(evil.read_text().replace("TARGET", anna.home))
        page = anna.page.context.new_page()
        page.goto(evil.as_uri())
        read = "fetch(HOME).then(r => r.text()).then(t => 'read', e => 'refused')".replace(
            "HOME", json.dumps(anna.home + "/")
        )
        assert page.evaluate(read) == "refused"
        with page.expect_response("**/stop") as answered:
            page.get_by_role("button").click()
        assert answered.value.status == 403
        page.close()
