"""Datasets to review, the page in a thread, and a browser without scripts."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from pipeline.review import Queue, ReviewSet, ReviewStore, Target, build_queues
from pipeline.review.desk import Desk
from pipeline.review.server import listen
from pipeline.store import sha256_text
from pipeline.synthesize.squares import pair_id_of, row_id_of
from schemas.taxonomy import PAIR_TYPES
from tests.built import Row, built, row

CLASSES = ("race", "weapon_related_violence")
QUESTIONS = ("text_safe", "image_safe", "pair_safe")


def own_row(number: int, query: str = "", image: int | None = None, **changes: Any) -> Row:
    """A row whose ids are those of a build; types and classes take turns."""
    query = query or f"What does sign number {number} say?"
    image_id = sha256_text(f"picture {number if image is None else image}")
    pair_id = pair_id_of(image_id, query)
    told = {
        "kind": PAIR_TYPES[number % 5],
        "name": CLASSES[number % 2],
        "query": query,
        "image_id": image_id,
        "query_id": pair_id,
        "lang": "en",
        "caption": f"A street with {number} shops",
    }
    return row(row_id_of(pair_id), **told | changes)


def vote(question: str, annotator: str, value: str, **changes: Any) -> dict[str, Any]:
    score = {"safe": 0.1, "unsafe": 0.9}.get(value)
    told = {"question": question, "annotator": annotator, "family": annotator, "status": "ok", "value": value}
    return told | {"score": score, "note": ""} | changes


def own_set(folder: Path, rows: list[Row]) -> Path:
    return built(folder / "data" / "dataset", rows)


@dataclass
class Answer:
    """What the page answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    path: str

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def words(self) -> str:
        """The text that a reader sees."""
        plain = re.sub(r"<(script|style|title)\b.*?</\1>|<[^>]+>", " ", self.text, flags=re.S)
        return " ".join(unescape(plain).split())

    def fields(self, action: str = "/vote") -> dict[str, str]:
        """The hidden fields of a form."""
        parser = _Forms()
        parser.feed(self.text)
        return dict(parser.found[action])


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str]] = {}
        self._action = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._action = told["action"]
            self.found[self._action] = {}
        elif tag == "input" and told.get("type") == "hidden":
            self.found[self._action][told["name"]] = told["value"]


@dataclass
class Browser:
    """Cookies, forms and redirects; what it sends can be bent."""

    url: str
    reviewer: str = ""
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reviewer:
            self.enter()
            form = self.get("/name").fields("/name")
            self.post("/name", form | {"name": self.reviewer})

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def enter(self) -> Answer:
        parts = urlsplit(self.url)
        return self.get(f"{parts.path}?{parts.query}")

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, fields: Mapping[str, Any], **headers: str) -> Answer:
        sent = {"Origin": self.origin, "Content-Type": "application/x-www-form-urlencoded"} | headers
        return self.ask("POST", path, urlencode(fields, doseq=True), sent)

    def ask(
        self, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str], hops: int = 5
    ) -> Answer:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        sent = self.headers | {"Host": parts.netloc} | dict(headers)
        if self.cookie:
            sent["Cookie"] = self.cookie
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in sent.items()})
        response = connection.getresponse()
        answer = Answer(
            response.status, {k.lower(): v for k, v in response.getheaders()}, response.read(), path
        )
        connection.close()
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].split(";")[0]
        if answer.status == 303 and hops:
            return self.ask("GET", answer.headers["location"], None, {}, hops - 1)
        return answer

    def queue(self, name: str = "random") -> Answer:
        return self.get("/queue?" + urlencode({"name": name}))

    def judge(self, page: Answer, *answers: str, **more: str) -> Answer:
        """Answer the questions of a page, all three unless it asks fewer, and go on."""
        said = dict(zip(QUESTIONS, answers or ("safe", "safe", "safe"), strict=True))
        return self.post("/vote", page.fields() | said | {"picture": "1"} | more)

    def act(self, page: Answer, action: str) -> Answer:
        return self.post(action, page.fields(action))


@dataclass
class Running:
    """The page of a dataset that is served."""

    desk: Desk
    url: str
    once: str
    port: int

    def browser(self, reviewer: str = "") -> Browser:
        return Browser(self.url, reviewer)


@contextmanager
def reviewing(
    items: ReviewSet,
    store: Path,
    votes_to: Path,
    *,
    suspects: list[tuple[str, str]] | None = None,
    cap: int = 200,
    sample: int = 300,
    reviewer: str = "",
) -> Iterator[Running]:
    """Serve a dataset in a thread."""
    queues: dict[str, Queue] = build_queues(items, suspects, 0, sample)
    with ReviewStore(store) as opened:
        desk = Desk(items, queues, opened, Target(votes_to), cap)
        serving = listen(desk, reviewer=reviewer)
        thread = threading.Thread(target=serving.run)
        thread.start()
        try:
            yield Running(desk, serving.url, serving.once, urlsplit(serving.url).port or 0)
        finally:
            serving.server.should_exit = True
            thread.join()
