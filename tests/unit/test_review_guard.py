"""Who may speak with the page, and what it says of itself."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.review import ReviewSet, open_review_set
from pipeline.review.guard import FORM_BYTES
from pipeline.review.server import listen
from schemas.errors import InputError
from tests.review import Browser, Running, own_row, own_set, reviewing, vote

NASTY = '"><script>window.owned=1</script><img src=x onerror=alert(1)>{{ 7 * 7 }}&amp;'


def attributes(text: str) -> list[tuple[str, str]]:
    """Every attribute of every tag, as a browser finds them."""
    found: list[tuple[str, str]] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend((tag, name) for name, _ in attrs)

    Tags().feed(text)
    return found


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ReviewSet:
    rows = [own_row(n) for n in range(3)]
    rows.append(own_row(4, NASTY, caption=NASTY))
    rows.append(own_row(5, class_key=f"a/{NASTY.replace('/', '|')}"))
    for one in rows:
        one["votes"] = [vote("text_safe", NASTY, NASTY, note=NASTY)]
    folder = own_set(tmp_path_factory.mktemp("guard"), rows)
    return open_review_set(str(folder))


@pytest.fixture
def page(items: ReviewSet, tmp_path: Path) -> Iterator[Running]:
    with reviewing(items, tmp_path / "r.sqlite", tmp_path / "votes.jsonl") as running:
        yield running


def test_the_token_becomes_a_cookie_and_leaves_the_address(page: Running) -> None:
    browser = page.browser()
    parts = browser.url.split("/enter", 1)
    answer = browser.ask("GET", "/enter" + parts[1], None, {}, hops=0)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    token = browser.url.partition("token=")[2]
    assert len(token) >= 43
    assert token not in answer.headers["set-cookie"]
    assert token not in browser.get("/").text


@pytest.mark.parametrize(
    "path", ["/", "/name", "/queue?name=random", "/picture/x", "/page/review.css", "/favicon.ico", "/nothing"]
)
def test_without_the_cookie_nothing_is_given(page: Running, path: str) -> None:
    for cookie in ("", f"holisafe_review_{page.port}=guess", "session=1"):
        answer = Browser(page.url, cookie=cookie).get(path)
        assert answer.status == 403
        assert "Open the address that the command printed" in answer.words


@pytest.mark.parametrize("key", ["", "x", "%C3%A4"])
def test_a_wrong_token_opens_nothing(page: Running, key: str) -> None:
    browser = Browser(page.url)
    answer = browser.get(f"/enter?token={key}")
    assert answer.status == 403
    assert browser.cookie == ""


def test_the_address_that_a_browser_is_started_with_opens_once(page: Running) -> None:
    assert page.once != page.url
    assert Browser(page.once).enter().status == 200
    assert Browser(page.once).enter().status == 403
    assert Browser(page.url).enter().status == Browser(page.url).enter().status == 200


@pytest.mark.parametrize("host", ["evil.test", "evil.test:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.test:{port}", ""])  # fmt: skip # noqa: E501
def test_another_host_name_is_refused(page: Running, host: str) -> None:
    anna = page.browser("anna")
    answer = anna.get("/", Host=host.format(port=page.port))
    assert answer.status == 421
    assert "Queues" not in answer.words
    assert (
        Browser(page.url).ask("GET", "/enter?" + page.url.split("?")[1], None, {"Host": "evil.test"}).status
        == 421
    )


def test_localhost_is_this_machine_too(page: Running) -> None:
    anna = page.browser("anna")
    assert anna.get("/", Host=f"localhost:{page.port}").status == 200


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({}, True),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "null"}, False),
        ({"Origin": "http://evil.test"}, False),
        ({"Origin": "https://127.0.0.1"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
    ],
)
def test_a_form_of_another_page_is_refused(page: Running, headers: dict[str, str], kept: bool) -> None:
    anna = page.browser("anna")
    fields = anna.queue().fields() | {"text_safe": "safe", "image_safe": "safe", "pair_safe": "safe"}
    answer = anna.post("/vote", fields, **headers)
    assert answer.status == (200 if kept else 403)
    assert bool(page.desk.store.votes("")) is kept


def test_a_form_without_an_origin_is_refused(page: Running) -> None:
    anna = page.browser("anna")
    form = anna.queue().fields()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert anna.ask("POST", "/undo", f"csrf={form['csrf']}", kind).status == 403


@pytest.mark.parametrize("action", ["/vote", "/undo", "/name", "/wishes", "/write", "/stop"])
@pytest.mark.parametrize("mark", [None, "", "guess", "ü"])
def test_every_form_needs_the_mark_of_its_session(page: Running, action: str, mark: str | None) -> None:
    anna = page.browser("anna")
    fields = anna.queue().fields() | {
        "text_safe": "safe",
        "image_safe": "safe",
        "pair_safe": "safe",
        "name": "eve",
    }
    del fields["csrf"]
    if mark is not None:
        fields["csrf"] = mark
    answer = anna.post(action, fields)
    assert answer.status == 403
    assert "earlier visit" in answer.words
    assert page.desk.store.votes("") == []
    assert page.desk.store.reviewers() == ["anna"]


def test_the_mark_of_another_session_does_not_fit(page: Running) -> None:
    anna, ben = page.browser("anna"), page.browser("ben")
    form = anna.queue().fields()
    assert ben.post("/undo", {"csrf": form["csrf"]}).status == 403


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"csrf=x", "text/plain", 415),
        (b"csrf=\xff", "application/x-www-form-urlencoded", 400),
        (b"a=1&" * 20_001, "application/x-www-form-urlencoded", 400),
        (b"a" * (FORM_BYTES + 1), "application/x-www-form-urlencoded", 413),
    ],
)
def test_what_is_no_form_of_the_page_is_refused(page: Running, body: bytes, kind: str, status: int) -> None:
    anna = page.browser("anna")
    answer = anna.ask("POST", "/vote", body, {"Origin": anna.origin, "Content-Type": kind})
    assert answer.status == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(page: Running, method: str) -> None:
    assert page.browser("anna").ask(method, "/", None, {}).status == 405


def test_every_answer_has_its_headers(page: Running) -> None:
    anna = page.browser("anna")
    picture = re.search(r"/picture/[^\"]+", anna.queue().text)
    assert picture
    answers = [anna.get(p) for p in ("/", "/queue?name=random", picture[0], "/page/review.js", "/nothing")]
    answers.append(Browser(page.url).get("/"))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe-inline" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_pages_ask_for_nothing_from_elsewhere_and_run_no_script_of_their_own_text(page: Running) -> None:
    anna = page.browser("anna")
    for path in ("/", "/name", "/help", "/wishes", "/queue?name=random"):
        text = anna.get(path).text
        assert not re.search(r"(src|href|action)=\"(https?:)?//", text)
        assert re.findall(r"<script\b[^>]*>", text) == ['<script src="/page/review.js" defer>']
        for tag, name in attributes(text):
            assert not name.startswith("on"), (path, tag, name)
            assert name != "style", (path, tag)


def test_markup_is_shown_and_never_made_part_of_a_page(page: Running) -> None:
    anna = page.browser("anna")
    answer, met = anna.queue(), 0
    while "/vote" in answer.text:
        row = answer.fields()["row"]
        answer = anna.judge(answer, note=NASTY)
        for text in (answer.text, anna.get(f"/others?row={row}&queue=random").text):
            assert "<script>window" not in text
            assert "<img src=x" not in text
            assert ">49<" not in text
            met += "&lt;script&gt;window.owned=1" in text
    assert met >= 5
    for path in ("/", "/wishes"):
        assert "<script>window" not in anna.get(path).text
        assert "&lt;script&gt;window.owned=1" in anna.get(path).text, "the name of a class"


def test_a_port_that_is_taken_is_told(page: Running) -> None:
    with pytest.raises(InputError, match=rf"--port {page.port}: cannot be had .*in use.*name another"):
        listen(page.desk, port=page.port)


def test_it_listens_on_this_machine_alone(page: Running) -> None:
    serving = listen(page.desk)
    try:
        assert serving.listening.getsockname()[0] == "127.0.0.1"
    finally:
        serving.listening.close()
    other = socket.gethostbyname(socket.gethostname())
    if not other.startswith("127."):
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((other, page.port)) != 0
