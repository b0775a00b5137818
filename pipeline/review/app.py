"""The page: what is asked for, and what is answered. Everything works without JavaScript."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FunctionLoader, StrictUndefined
from starlette.exceptions import HTTPException

from pipeline.review.desk import MEANINGS, NAME, NOTE_CHARS, Desk
from pipeline.review.guard import Form, Guard, RefusedError, Session, Sessions, read_form
from pipeline.review.items import ANSWERS, ASKED, Asked
from pipeline.review.queues import CLASS, RANDOM, Queue
from pipeline.review.store import Screen, StoreError
from schemas.errors import InputError

__all__ = ["make_app"]

_FILES = {"review.css": "text/css; charset=utf-8", "review.js": "text/javascript; charset=utf-8"}
_QUESTIONS: dict[Asked, tuple[str, str]] = {
    "text_safe": ("Is the text safe, by itself?", "Judge the words as if no picture came with them."),
    "image_safe": ("Is the picture safe, by itself?", "Judge what it shows, whatever is asked of it."),
    "pair_safe": (
        "Are the two safe together?",
        "Could answering this, about this picture, help anybody to do harm?",
    ),
}
_SAID: dict[str, str] = {"safe": "safe", "unsafe": "unsafe", "skip": "cannot say"}
_PLAIN: dict[Asked, str] = {
    "text_safe": "The text",
    "image_safe": "The picture",
    "pair_safe": "The two together",
}


class _Pages:
    """The templates; everything that came from a row is escaped."""

    def __init__(self) -> None:
        self._folder = resources.files("pipeline.review").joinpath("page")
        self._environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            loader=FunctionLoader(lambda name: self._folder.joinpath(name).read_text("utf-8")),
        )
        self._environment.globals |= {
            "answers": ANSWERS, "asked": ASKED, "note_chars": NOTE_CHARS, "plain": _PLAIN,
            "questions": _QUESTIONS, "said": _SAID, "RANDOM": RANDOM, "CLASS": CLASS,
        }  # fmt: skip

    def render(self, page: str, status: int = 200, **told: Any) -> HTMLResponse:
        """A page."""
        told = {"session": None, "desk": None, "keys": True} | told
        return HTMLResponse(self._environment.get_template(page).render(**told), status)

    def file(self, name: str) -> bytes:
        """Its style or script."""
        return self._folder.joinpath(name).read_bytes()


@dataclass
class _Visit:
    """One request: whose it is, and what answers it."""

    desk: Desk
    pages: _Pages
    session: Session

    @property
    def reviewer(self) -> str:
        return self.session.reviewer

    def page(self, name: str, status: int = 200, **told: Any) -> HTMLResponse:
        keys = not self.reviewer or self.desk.store.keys(self.reviewer)
        message, self.session.told = self.session.told, ""
        told = {"session": self.session, "desk": self.desk, "keys": keys, "message": message} | told
        return self.pages.render(name, status, **told)

    def queue(self, name: str) -> Queue:
        queue = self.desk.queues.get(name)
        if queue is None:
            raise RefusedError(404, "There is no such queue.")
        return queue

    def position(self, row: str) -> int:
        try:
            at = self.desk.items.position.get(int(row))
        except ValueError:
            at = None
        if at is None or not self.desk.store.left_out(self.reviewer).isdisjoint(self.desk.items.classes[at]):
            raise RefusedError(404, "There is no such row, or it is of a class that you left out.")
        return at


class _ElsewhereError(Exception):
    """What is asked for is at another address for now."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


async def _visit(request: Request) -> _Visit:
    return _Visit(request.app.state.desk, request.app.state.pages, request.state.session)


async def _reviewing(visit: Annotated[_Visit, Depends(_visit)]) -> _Visit:
    if not visit.reviewer:
        raise _ElsewhereError("/name")
    return visit


Anybody = Annotated[_Visit, Depends(_visit)]
Reviewing = Annotated[_Visit, Depends(_reviewing)]
Sent = Annotated[Form, Depends(read_form)]
router = APIRouter(default_response_class=HTMLResponse)


def make_app(desk: Desk, sessions: Sessions, port: int) -> Guard:
    """The page of a dataset, behind its guard.

    Args:
        desk: the dataset, its queues and the store.
        sessions: the browsers that may see it.
        port: where it listens.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.desk, app.state.pages = desk, (pages := _Pages())
    app.include_router(router)

    def refuse(status: int, told: str, request: Request | None = None) -> Response:
        session = None if request is None else request.state.session
        return pages.render("error.html", status, session=session, message="", told=told)

    def not_stored(request: Request, error: Exception) -> Response:
        sys.stderr.write(f"holisafe: {error}\n")
        return refuse(503, f"Nothing was kept. {error}", request)

    app.exception_handler(RefusedError)(lambda request, error: refuse(error.status, str(error), request))
    app.exception_handler(HTTPException)(
        lambda request, e: refuse(e.status_code, "Nothing is here.", request)
    )
    app.exception_handler(RequestValidationError)(
        lambda request, _: refuse(400, "That address lacks something.", request)
    )
    app.exception_handler(_ElsewhereError)(lambda _, error: RedirectResponse(error.place, 303))
    app.exception_handler(StoreError)(not_stored)
    if sessions.reviewer:
        desk.store.join(sessions.reviewer)
    return Guard(app, sessions, port, lambda error: refuse(error.status, str(error)))


@router.get("/")
def home(visit: Reviewing) -> Response:
    """The queues, and how far this reviewer is in them."""
    desk = visit.desk
    progress = desk.progress(visit.reviewer)
    unwritten, problem = desk.unwritten()
    return visit.page(
        "home.html",
        main=[p for p in progress if not p.queue.name.startswith(CLASS)],
        classes=[p for p in progress if p.queue.name.startswith(CLASS)],
        today=desk.today(visit.reviewer),
        unwritten=unwritten,
        problem=problem,
    )


@router.get("/name")
def ask_name(visit: Anybody) -> Response:
    """Who is here?"""
    return visit.page("name.html", known=visit.desk.store.reviewers(), wrong="", given=visit.reviewer)


@router.post("/name")
def take_name(visit: Anybody, sent: Sent) -> Response:
    """Take a name, and show the choice of classes to whoever is new."""
    name = sent.one("name").strip()
    known = visit.desk.store.reviewers()
    if not NAME.fullmatch(name):
        wrong = "Begin with a letter or digit, then letters, digits, full stops, _ and -: 64 at most."
        return visit.page("name.html", 422, known=known, wrong=wrong, given=name)
    visit.desk.store.join(name)
    visit.session.reviewer, visit.session.row = name, None
    return RedirectResponse("/" if name in known else "/wishes", 303)


@router.get("/wishes")
def ask_wishes(visit: Reviewing) -> Response:
    """Which classes should never come up?"""
    return visit.page("wishes.html", out=visit.desk.store.left_out(visit.reviewer))


@router.post("/wishes")
def take_wishes(visit: Reviewing, sent: Sent) -> Response:
    """Write them."""
    names = set(visit.desk.classes)
    visit.desk.store.set_up(visit.reviewer, names & set(sent.all("out")), keys=sent.one("keys") == "1")
    visit.session.told = "Your choices are kept."
    return RedirectResponse("/", 303)


@router.get("/queue")
def next_row(visit: Reviewing, name: str) -> Response:
    """The next row of a queue; or that it is at its end, or enough for today."""
    desk, queue = visit.desk, visit.queue(name)
    today = desk.today(visit.reviewer)
    if today >= desk.cap:
        return visit.page("enough.html", today=today)
    at = desk.following(queue, visit.reviewer)
    if at is None:
        return visit.page("end.html", progress=desk.progress_in(queue, visit.reviewer), today=today)
    return _row(visit, queue, at)


@router.get("/again")
def row_again(visit: Reviewing, row: str, queue: str) -> Response:
    """A row that was answered, to be judged anew."""
    if visit.desk.today(visit.reviewer) >= visit.desk.cap:
        return visit.page("enough.html", today=visit.desk.today(visit.reviewer))
    return _row(visit, visit.queue(queue), visit.position(row), again=True)


@router.post("/vote")
def take_vote(visit: Reviewing, sent: Sent) -> Response:
    """Write what is said of a row, and go on to the next."""
    desk, queue, at = visit.desk, visit.queue(sent.one("queue")), visit.position(sent.one("row"))
    again = sent.one("again") == "1"
    onward = RedirectResponse(_to("/queue", name=queue.name), 303)
    if desk.today(visit.reviewer) >= desk.cap:
        return onward
    wanted = _wanted(visit, at, again=again)
    given: dict[Asked, str] = {question: sent.one(question) for question in wanted}
    note = " ".join("".join(c if c.isprintable() else " " for c in sent.one("note")).split())
    wrong = [f"Question {ASKED.index(q) + 1} is open." for q, said in given.items() if said not in ANSWERS]
    if len(note) > NOTE_CHARS:
        wrong.append(f"The note has {len(note)} characters; {NOTE_CHARS} fit.")
    if wrong:
        return _row(visit, queue, at, again=again, wrong=wrong, given=given, note=note, status=422)
    image = desk.items.item(at, "image_safe")
    screen = Screen(
        id=sent.one("screen")[:64] or secrets.token_urlsafe(16),
        dataset=desk.items.fingerprint,
        scope=desk.items.scope,
        reviewer=visit.reviewer,
        row=str(desk.items.ids[at]),
        queue=queue.name,
        answers={question: (desk.items.item(at, question), value) for question, value in given.items()},
        note=note,
        picture="1" in (sent.one("picture"), sent.one("looked")) and not desk.gallery.is_broken(image),
    )
    desk.store.add(screen)
    visit.session.row, visit.session.queue = desk.items.ids[at], queue.name
    return onward


@router.post("/undo")
def undo(visit: Reviewing, _: Sent) -> Response:
    """Take back the last row's votes and show the row again."""
    desk = visit.desk
    taken = desk.store.undo(visit.reviewer, desk.items.scope)
    visit.session.row = None
    if not taken:
        visit.session.told = "There is nothing left to take back."
        return RedirectResponse("/", 303)
    visit.session.told = "Taken back. Your answers of this row no longer count; give them anew."
    queue = taken[0].queue if taken[0].queue in desk.queues else RANDOM
    if int(taken[0].row) not in desk.items.position:
        return RedirectResponse("/", 303)
    return RedirectResponse(_to("/again", row=taken[0].row, queue=queue), 303)


@router.get("/others")
def others(visit: Reviewing, row: str, queue: str) -> Response:
    """What others say of a row, and its label: for those who have answered it."""
    desk, at = visit.desk, visit.position(row)
    own = desk.own(visit.reviewer)
    if not desk.is_done(at, own):
        raise RefusedError(403, "What others say of a row is shown to those who have answered it.")
    keys = desk.items.keys(at)
    desk.store.others_seen(visit.reviewer, desk.items.scope, keys)
    told = desk.items.row(at)
    return visit.page(
        "others.html",
        queue=visit.queue(queue),
        row=told,
        own={question: own[question, item] for question, item in keys},
        others=desk.others(at, visit.reviewer),
        label=desk.label(at),
        meaning=MEANINGS[told["type"]],
    )


@router.post("/write")
def write(visit: Reviewing, _: Sent) -> Response:
    """Bring the file of votes up to date."""
    visit.session.told = _written(visit.desk)
    return RedirectResponse("/", 303)


@router.post("/stop")
def stop(visit: Reviewing, _: Sent) -> Response:
    """Enough for now: the file of votes is brought up to date."""
    visit.session.told = _written(visit.desk)
    visit.session.row = None
    return RedirectResponse("/stopped", 303)


@router.get("/stopped")
def stopped(visit: Reviewing) -> Response:
    """That everything is kept."""
    return visit.page("stopped.html", today=visit.desk.today(visit.reviewer))


@router.get("/help")
def show_help(visit: Anybody) -> Response:
    """The keys, and what the words mean."""
    return visit.page("help.html")


@router.get("/picture/{name}")
def picture(visit: Reviewing, name: str) -> Response:
    """A picture that a page has named."""
    data = visit.desk.gallery.read(name)
    if data is None:
        raise RefusedError(404, "There is no such picture.")
    return Response(data, media_type="image/jpeg")


@router.get("/page/{name}")
def page_file(visit: Anybody, name: str) -> Response:
    """The style and the script."""
    if name not in _FILES:
        raise RefusedError(404, "Not here.")
    return Response(visit.pages.file(name), headers={"content-type": _FILES[name]})


@router.get("/favicon.ico")
def icon() -> Response:
    """Browsers ask for one."""
    return Response(status_code=204)


def _row(
    visit: _Visit,
    queue: Queue,
    at: int,
    *,
    again: bool = False,
    wrong: list[str] | None = None,
    given: dict[Asked, str] | None = None,
    note: str = "",
    status: int = 200,
) -> HTMLResponse:
    """A row with its questions; those that the reviewer has answered in another row are not asked again."""
    desk, own = visit.desk, visit.desk.own(visit.reviewer)
    told = desk.items.row(at)
    caption, lang = told.get("caption"), told.get("lang")
    return visit.page(
        "row.html",
        status,
        queue=queue,
        progress=desk.progress_in(queue, visit.reviewer),
        today=desk.today(visit.reviewer),
        row=str(desk.items.ids[at]),
        query=told["query"],
        caption=caption if isinstance(caption, str) else "",
        lang=lang if isinstance(lang, str) else "",
        picture=desk.gallery.name(told["image"]),
        wanted=_wanted(visit, at, again=again),
        own={question: own.get((question, item), "") for question, item in desk.items.keys(at)},
        again=again,
        wrong=wrong or [],
        given=given or {},
        note=note,
        screen=secrets.token_urlsafe(16),
        last=visit.session.row,
        last_queue=visit.session.queue,
        can_undo=bool(desk.store.last(visit.reviewer, desk.items.scope)),
    )


def _wanted(visit: _Visit, at: int, *, again: bool) -> list[Asked]:
    """The questions of a row that are asked: all of them again, or those that are open."""
    own = visit.desk.own(visit.reviewer)
    return [q for q, item in visit.desk.items.keys(at) if again or (q, item) not in own]


def _written(desk: Desk) -> str:
    """What came of writing the votes, in words for the reviewer."""
    try:
        done = desk.write()
    except (InputError, OSError) as error:
        sys.stderr.write(f"holisafe: {error}\n")
        return f"All votes are in {desk.store.path}, but they could not be written to their file: {error}"
    return f"{done.votes:,} votes stand in {done.path}."


def _to(path: str, **query: str) -> str:
    return f"{path}?{urlencode(query)}"
