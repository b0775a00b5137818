"""Who may speak with the page: this machine, with the token, from the page itself."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["FORM_BYTES", "Form", "Guard", "RefusedError", "Session", "Sessions", "read_form"]

FORM_BYTES = 2**20
SESSIONS = 500
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
ENTER = "/enter"


class RefusedError(Exception):
    """A request that is not served; `status` is HTTP's, the message is for people."""

    def __init__(self, status: int, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.status = status


@dataclass
class Session:
    """One browser.

    Attributes:
        csrf: what its forms carry.
        reviewer: who uses it; empty until it is said.
        told: a message for its next page.
        row: the row that was answered last, if others' votes may be shown of it.
    """

    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    reviewer: str = ""
    told: str = ""
    row: int | None = None
    queue: str = ""


class Sessions:
    """The browsers that have come in with the token."""

    def __init__(self, reviewer: str = "") -> None:
        """Make the token.

        Args:
            reviewer: who uses a browser unless it is told otherwise.
        """
        self.token = secrets.token_urlsafe(32)
        self.reviewer = reviewer
        self._tickets: set[str] = set()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def ticket(self) -> str:
        """A token that opens the page once: a browser's command line can be read by others here."""
        made = secrets.token_urlsafe(32)
        with self._lock:
            self._tickets.add(made)
        return made

    def enter(self, token: str) -> str | None:
        """A cookie for a browser that has the token or a ticket; None for any other."""
        with self._lock:
            known = [self.token, *self._tickets]
            found = [one for one in known if secrets.compare_digest(one.encode(), token.encode())]
            if not found:
                return None
            self._tickets.discard(found[0])
            cookie = secrets.token_urlsafe(32)
            self._sessions[cookie] = Session(reviewer=self.reviewer)
            while len(self._sessions) > SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            return cookie

    def get(self, cookie: str | None) -> Session | None:
        """The session of a cookie."""
        with self._lock:
            return None if cookie is None else self._sessions.get(cookie)


class Guard:
    """Refuses what does not come from the page itself, and gives every answer its headers."""

    def __init__(
        self, app: ASGIApp, sessions: Sessions, port: int, refuse: Callable[[RefusedError], Response]
    ) -> None:
        """Stand before an app.

        Args:
            app: what is guarded.
            sessions: whose requests are served.
            port: where it listens.
            refuse: makes the answer to what is not served.
        """
        self._app, self._sessions, self._refuse = app, sessions, refuse
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        if port == 80:  # which browsers leave out
            self._hosts |= {"127.0.0.1", "localhost"}
        self._cookie = f"holisafe_review_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            answer = self._checked(scope)
        except RefusedError as error:
            answer = self._refuse(error)
        await (answer or self._app)(scope, receive, with_headers)

    def _checked(self, scope: Scope) -> Response | None:
        """Refuse, or let the browser in, or hand the request on with its session."""
        request = Request(scope)
        headers = request.headers
        if headers.get("host", "").lower() not in self._hosts:
            raise RefusedError(
                421, "This page is at 127.0.0.1 alone; open the address that the command printed."
            )
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise RefusedError(405, "Nothing here is asked in that way.")
        if scope["path"] == ENTER:
            return self._enter(request)
        session = self._sessions.get(request.cookies.get(self._cookie))
        if session is None:
            raise RefusedError(403, "Open the address that the command printed: it has the key to this page.")
        if scope["method"] == "POST" and not self._from_here(headers):
            raise RefusedError(403, "This was not sent from the page itself.")
        scope.setdefault("state", {})["session"] = session
        return None

    def _enter(self, request: Request) -> Response:
        cookie = self._sessions.enter(request.query_params.get("token", ""))
        if cookie is None:
            raise RefusedError(403, "That key does not fit; open the address that the command printed last.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, cookie, httponly=True, samesite="strict", path="/")
        return answer

    def _from_here(self, headers: Headers) -> bool:
        """Whether a form was sent by a page of ours.

        Under our referrer policy a browser sends `Origin: null` with forms, and then says by `Sec-Fetch-Site`
        where they come from.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            return False
        if origin is None or origin == "null":
            return site == "same-origin"
        return origin.lower() in {f"http://{host}" for host in self._hosts}


class Form:
    """What a form holds."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        """Keep its fields."""
        self._fields = fields

    def one(self, name: str) -> str:
        """A field's value; empty where it has none."""
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return self._fields.get(name, [])


async def read_form(request: Request) -> Form:
    """The form of a request that carries its session's mark.

    Raises:
        RefusedError: when it is no form, too large, or not one of the session's pages.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RefusedError(415, "Only forms of this page are read.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            raise RefusedError(413, "That is more than a form of this page can hold.")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=20_000)
    except ValueError as error:
        raise RefusedError(400, "That is no form of this page.") from error
    form = Form(fields)
    if not secrets.compare_digest(form.one("csrf").encode(), request.state.session.csrf.encode()):
        raise RefusedError(403, "This form is of an earlier visit; open the page again and send it anew.")
    return form
