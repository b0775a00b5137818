"""The engine against a real local server that speaks the OpenAI protocol and counts what it gets."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from pipeline.engine import (
    TOTAL,
    Budget,
    BudgetError,
    CallCache,
    CallCacheError,
    EndpointError,
    Engine,
    RemoteEndpoint,
    Request,
    Terms,
    open_cache,
)

SECRET = "sk-secret-0123456789"  # noqa: S105 - of no service
ROOT = Path(__file__).resolve().parents[2]


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str
    unsafe: bool


GOOD = json.dumps({"reason": "nothing in it", "unsafe": False})
Reply = Callable[[dict[str, Any], int], web.Response]


def completion(
    text: str | None, finish: str = "stop", logprobs: dict[str, Any] | None = None, **message: Any
) -> web.Response:
    choice = {
        "logprobs": logprobs,
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


class Server:
    """Answers with `reply(body, number of this call)`, after `delay_s`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.reply: Reply = lambda body, number: completion(GOOD)
        self.delay_s = 0.0
        self.trickles = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.keys.add(request.headers["Authorization"])
        self.bodies.append(body)
        self.times.append(time.monotonic())
        number = len(self.bodies)
        await asyncio.sleep(self.delay_s)
        if self.trickles and number > 1:
            slow = web.StreamResponse()
            await slow.prepare(request)
            for _ in range(100):
                await slow.write(b" ")
                await asyncio.sleep(0.1)
            return slow
        return self.reply(body, number)

    def stop(self) -> None:
        async def down() -> None:
            await self._runner.cleanup()
            await self._loop.shutdown_default_executor()

        asyncio.run_coroutine_threadsafe(down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CallCache]:
    with open_cache(tmp_path / "calls.sqlite") as opened:
        yield opened


def endpoint(server: Server, concurrency: int = 16, **terms: Any) -> RemoteEndpoint:
    return RemoteEndpoint("scripted-test", server.url, SECRET, Terms(concurrency=concurrency, **terms))


def ask(text: str, **more: Any) -> Request:
    messages = [{"role": "system", "content": "You judge."}, {"role": "user", "content": text}]
    return Request("scripted-test", "m", messages, {"temperature": 0, **more}, Verdict)


def rows(count: int) -> list[Request]:
    return [ask(f"item {i}") for i in range(count)]


def test_answers_come_in_order_and_checked(server: Server, cache: CallCache) -> None:
    server.delay_s = 0.002
    server.reply = lambda body, number: completion(
        json.dumps({"reason": body["messages"][-1]["content"], "unsafe": number % 2 == 0})
    )
    seen: list[tuple[int, int]] = []
    answers = Engine(cache, endpoint(server)).ask_all(
        rows(50), stage="t", on_progress=lambda done, total: seen.append((done, total))
    )
    assert [answer.value.reason for answer in answers if isinstance(answer.value, Verdict)] == [
        f"item {i}" for i in range(50)
    ]
    assert {answer.status for answer in answers} == {"ok"}
    assert seen[-1] == (50, 50)
    assert server.bodies[0]["response_format"]["json_schema"]["schema"]["additionalProperties"] is False


def test_a_rerun_sends_nothing_and_an_append_sends_what_is_new(server: Server, cache: CallCache) -> None:
    Engine(cache, endpoint(server)).ask_all(rows(1000), stage="t")
    assert len(server.bodies) == 1000
    again = Engine(cache, endpoint(server))
    assert all(answer.cached for answer in again.ask_all(rows(1000), stage="t"))
    assert len(server.bodies) == 1000
    assert (again.stats.sent, again.stats.cached) == (0, 1000)
    more = Engine(cache, endpoint(server))
    more.ask_all(rows(1100), stage="another stage")
    assert len(server.bodies) == 1100
    assert (more.stats.sent, more.stats.cached) == (100, 1000)


def test_cached_answers_need_no_endpoint(server: Server, cache: CallCache) -> None:
    Engine(cache, endpoint(server)).ask_all(rows(3), stage="t")

    class Never(RemoteEndpoint):
        def start(self) -> Any:
            raise AssertionError("started for nothing")

    never = Never("scripted-test", "http://127.0.0.1:1/v1", "")
    assert len(Engine(cache, never).ask_all(rows(3), stage="t")) == 3


def test_equal_requests_are_one_flight(server: Server, cache: CallCache) -> None:
    server.delay_s = 0.05
    answers = Engine(cache, endpoint(server)).ask_all([ask("same")] * 20, stage="t")
    assert len(server.bodies) == 1
    assert [answer.cached for answer in answers].count(False) == 1
    two = [
        Request("scripted-test", "m", ask("same").messages, {"temperature": 0}, Verdict, s) for s in (0, 1)
    ]
    Engine(cache, endpoint(server)).ask_all(two, stage="t")
    assert len(server.bodies) == 2, "another sample index is another question"


def test_kill_9_resends_only_what_was_under_way(server: Server, tmp_path: Path) -> None:
    server.delay_s = 0.02
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_engine_client import rows
from pipeline.engine import *
with open_cache(Path({str(tmp_path / "calls.sqlite")!r})) as cache:
    there = RemoteEndpoint("scripted-test", {server.url!r}, "k", Terms(concurrency=8))
    Engine(cache, there).ask_all(rows(400), stage="t")
"""
    child = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while len(server.bodies) < 150 and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with open_cache(tmp_path / "calls.sqlite") as cache:
        committed = {record.request_json for record in cache.records()}
        before = len(server.bodies)
        assert before - len(committed) <= 8, "a call is handed a place only when the one before is committed"
        Engine(cache, endpoint(server, 8)).ask_all(rows(400), stage="t")
        resent = {body["messages"][-1]["content"] for body in server.bodies[before:]}
        kept = {json.loads(request)["messages"][-1]["content"] for request in committed}
        assert not resent & kept
        assert len(server.bodies) - before == 400 - len(committed)


@pytest.mark.parametrize("text", [GOOD[:-8], GOOD])
def test_a_cut_off_answer_is_never_an_answer(server: Server, cache: CallCache, text: str) -> None:
    server.reply = lambda body, number: completion(text, finish="length")
    (answer,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert (answer.status, answer.value, answer.raw) == ("unscorable", None, text)
    (again,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert (again.status, again.cached, len(server.bodies)) == ("unscorable", True, 1)


def test_a_wrong_answer_is_asked_for_again_with_the_error(server: Server, cache: CallCache) -> None:
    texts = ['{"reason": "r"}', '{"reason": "r", "unsafe": "perhaps"}', GOOD]
    server.reply = lambda body, number: completion(texts[number - 1])
    engine = Engine(cache, endpoint(server))
    (answer,) = engine.ask_all([ask("x")], stage="t")
    assert (answer.status, answer.attempts, answer.prompt_tokens, engine.stats.reasked) == ("ok", 3, 21, 2)
    assert "unsafe" in server.bodies[1]["messages"][-1]["content"]
    assert [(r.attempt, r.response_text) for r in sorted(cache.records(), key=lambda r: r.attempt)] == [
        (1, texts[0]),
        (2, texts[1]),
        (3, texts[2]),
    ]
    (again,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert (again.status, again.cached, len(server.bodies)) == ("ok", True, 3)


def test_never_valid_is_unscorable(server: Server, cache: CallCache) -> None:
    server.reply = lambda body, number: completion("I think it is safe.")
    (answer,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert (answer.status, answer.attempts, answer.raw) == ("unscorable", 3, "I think it is safe.")


@pytest.mark.parametrize(
    "reply",
    [
        completion(None, refusal="I cannot"),
        completion("", finish="content_filter"),
        web.json_response({"error": {"message": "filtered", "code": "content_filter"}}, status=400),
    ],
    ids=["refusal", "finish_reason", "http 400"],
)
def test_a_refused_call_is_blocked(server: Server, cache: CallCache, reply: web.Response) -> None:
    server.reply = lambda body, number: reply
    (answer,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert (answer.status, answer.value) == ("blocked", None)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured_by_that_call_alone(server: Server, cache: CallCache, as_date: bool) -> None:
    wait = 2 if as_date else 1
    value = email.utils.formatdate(time.time() + wait, usegmt=True) if as_date else str(wait)

    def reply(body: dict[str, Any], number: int) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": value}) if number == 1 else completion(GOOD)

    server.reply = reply
    engine = Engine(cache, endpoint(server, 1))
    answers = engine.ask_all(rows(20), stage="t")
    assert {answer.status for answer in answers} == {"ok"}
    assert engine.stats.retried == 1
    first = server.bodies[0]["messages"][-1]["content"]
    (again,) = [i for i, b in enumerate(server.bodies) if i and b["messages"][-1]["content"] == first]
    assert server.times[again] - server.times[0] >= (0.5 if as_date else 1.0)
    assert again == 20, "the others did not wait"


def test_server_errors_are_tried_again(server: Server, cache: CallCache) -> None:
    server.reply = lambda body, number: web.Response(status=503) if number == 1 else completion(GOOD)
    (answer,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert (answer.status, len(server.bodies)) == ("ok", 2)


def test_a_bad_request_is_an_error_and_not_kept(server: Server, cache: CallCache) -> None:
    server.reply = lambda body, number: web.json_response(
        {"error": {"message": f"too long; your key is {SECRET}"}}, status=400
    )
    (answer,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert (answer.status, answer.cached, cache.count()) == ("error", False, 0)
    assert "too long" in answer.error
    assert SECRET not in answer.error
    server.reply = lambda body, number: completion(GOOD)
    (answer,) = Engine(cache, endpoint(server)).ask_all([ask("x")], stage="t")
    assert answer.status == "ok"


def test_a_wrong_key_stops_everything_at_once(server: Server, cache: CallCache) -> None:
    server.reply = lambda body, number: web.json_response({"error": {"message": f"bad {SECRET}"}}, status=401)
    with pytest.raises(EndpointError, match="check the endpoint's base_url, its key") as raised:
        Engine(cache, endpoint(server, 4)).ask_all(rows(200), stage="t")
    assert SECRET not in str(raised.value)
    assert len(server.bodies) <= 4


def test_a_dead_endpoint_is_one_clear_error_and_a_rerun_goes_on(cache: CallCache) -> None:
    first = Server()
    count = 30

    def reply(body: dict[str, Any], number: int) -> web.Response:
        return completion(GOOD)

    first.reply = reply
    Engine(cache, endpoint(first)).ask_all(rows(count), stage="t")
    first.stop()
    with pytest.raises(EndpointError, match=r"does not answer.*run the same command again"):
        Engine(cache, endpoint(first), retries=1).ask_all(rows(100), stage="t")
    assert cache.count() == count
    second = Server()
    try:
        Engine(cache, endpoint(second)).ask_all(rows(100), stage="t")
        assert len(second.bodies) == 70
    finally:
        second.stop()


def test_an_endpoint_that_fails_every_row_is_given_up(server: Server, cache: CallCache) -> None:
    server.reply = lambda body, number: web.Response(status=500)
    with pytest.raises(EndpointError, match="does not answer"):
        Engine(cache, endpoint(server, 2), retries=0).ask_all(rows(100), stage="t")
    assert len(server.bodies) <= 8


def test_nonsense_with_status_200_is_an_error(server: Server, cache: CallCache) -> None:
    server.reply = lambda body, number: completion(GOOD) if number == 1 else web.Response(text="<html>")
    good, bad = Engine(cache, endpoint(server, 1), retries=0).ask_all(rows(2), stage="t")
    assert (good.status, bad.status, cache.count()) == ("ok", "error", 1)
    assert "not JSON" in bad.error


def test_a_reply_that_trickles_in_for_ever_is_a_timeout(server: Server, cache: CallCache) -> None:
    server.trickles = True
    began = time.monotonic()
    good, bad = Engine(cache, endpoint(server, 1, timeout_s=0.5), retries=0).ask_all(rows(2), stage="t")
    assert time.monotonic() - began < 5
    assert (good.status, bad.status, bad.again, cache.count()) == ("ok", "error", True, 1)
    assert "TimeoutError" in bad.error


@pytest.mark.parametrize("code", [403, 404])
def test_what_refuses_all_at_first_refuses_one_call_later(
    server: Server, cache: CallCache, code: int
) -> None:
    refusal = {"error": {"message": "not this one"}}

    def reply(body: dict[str, Any], number: int) -> web.Response:
        return web.json_response(refusal, status=code) if number == 3 else completion(GOOD)

    server.reply = reply
    answers = Engine(cache, endpoint(server, 1)).ask_all(rows(6), stage="t")
    assert [answer.status for answer in answers].count("ok") == 5
    assert [answer.error for answer in answers if answer.status == "error"] == [f"HTTP {code}: not this one"]


def test_an_answer_that_costs_more_than_it_could_is_kept_and_ends_a_run_with_a_cap(
    server: Server, cache: CallCache
) -> None:
    usage = {"prompt_tokens": 10_000, "completion_tokens": 3}

    def reply(body: dict[str, Any], number: int) -> web.Response:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": GOOD}}
        return web.json_response({"choices": [choice], "usage": usage})

    server.reply = reply
    dear = endpoint(server, 4, prompt_price=1.0)
    with pytest.raises(BudgetError, match=r"counted 10000 tokens.*Raise the endpoint's image_tokens"):
        Engine(cache, dear, budget=Budget.of(cache, {TOTAL: 100.0})).ask_all(rows(50), stage="t")
    assert len(server.bodies) == cache.count() == 1
    answers = Engine(cache, dear, budget=Budget.of(cache, {})).ask_all(rows(50), stage="t")
    assert {answer.status for answer in answers} == {"ok"}, "without a cap nothing relies on it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_handler_raises_keeps_what_is_under_way(
    server: Server, tmp_path: Path, number: signal.Signals
) -> None:
    server.delay_s = 0.3
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_engine_client import rows
from pipeline.engine import *
import signal
class Cancelled(BaseException): pass
def cancel(*_): raise Cancelled  # as Prefect does
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
signal.signal(signal.SIGTERM, cancel)
with open_cache(Path({str(tmp_path / "calls.sqlite")!r})) as cache:
    there = RemoteEndpoint("scripted-test", {server.url!r}, "k", Terms(concurrency=4))
    Engine(cache, there).ask_all(rows(400), stage="t")
"""
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(server.bodies) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(number)
    assert child.wait(timeout=30) != 0
    with open_cache(tmp_path / "calls.sqlite") as cache:
        # The first call went alone, then four at once.
        assert cache.count() == len(server.bodies) <= 5


def test_the_warm_prefix_is_sent_before_an_item_that_begins_like_the_last_and_is_not_kept(
    server: Server, cache: CallCache
) -> None:
    prefix = [{"role": "system", "content": "You judge."}]
    engine = Engine(cache, endpoint(server, 1))
    items = [ask(item) for item in ("abc", "bcd", "bde", "a", "éa", "ña")]
    engine.ask_all(items, stage="t", warm=prefix)
    said = [body["messages"][-1]["content"] for body in server.bodies]
    assert said == [".", "abc", "bcd", ".", "bde", "a", "éa", ".", "ña"], "é and ñ share their first byte"
    warmed = [body for body in server.bodies if body["messages"][-1]["content"] == "."]
    assert all(body["messages"][:-1] == prefix and body["max_tokens"] == 1 for body in warmed)
    assert cache.count() == engine.stats.sent == 6
    engine.ask_all(items, stage="t", warm=prefix)
    assert len(server.bodies) == 9


def test_log_probabilities_of_the_first_word_come_with_the_answer_and_are_kept(
    server: Server, cache: CallCache
) -> None:
    tokens = [{"token": "uns", "logprob": -0.25}, {"token": "safe", "logprob": -1.5}]
    word = {"content": [{"token": "uns", "logprob": -0.25, "top_logprobs": tokens}]}
    server.reply = lambda body, number: completion("unsafe", logprobs=word)
    messages = [{"role": "user", "content": "x"}]
    request = Request("scripted-test", "m", messages, {"logprobs": True, "top_logprobs": 2})
    for cached in (False, True):
        (answer,) = Engine(cache, endpoint(server)).ask_all([request], stage="t")
        assert (answer.cached, answer.raw) == (cached, "unsafe")
        assert answer.first_tokens == {"uns": -0.25, "safe": -1.5}
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 2)


def test_extra_body_is_sent_flat(server: Server, cache: CallCache) -> None:
    request = ask("x", seed=3, extra_body={"cache_prompt": True, "id_slot": 0})
    Engine(cache, endpoint(server)).ask_all([request], stage="t")
    body = server.bodies[0]
    assert (body["cache_prompt"], body["id_slot"], body["seed"]) == (True, 0, 3)
    assert "extra_body" not in body


def test_images_are_sent_as_data_and_keyed_by_hash(server: Server, cache: CallCache) -> None:
    import hashlib

    data = b"\x89PNG\r\n\x1a\n" + b"0" * 10
    sha = hashlib.sha256(data).hexdigest()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image", "sha256": sha}]
    request = Request("scripted-test", "m", [{"role": "user", "content": content}], {}, Verdict)
    Engine(cache, endpoint(server), blobs={sha: data}.__getitem__).ask_all([request], stage="t")
    url = server.bodies[0]["messages"][0]["content"][1]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    (record,) = cache.records()
    assert sha in record.request_json
    assert "base64" not in record.request_json
    with pytest.raises(ValueError, match="blobs gave bytes with SHA-256"):
        Engine(cache, endpoint(server), blobs=lambda _: b"other").ask_all(
            [Request("scripted-test", "m", request.messages, {}, Verdict, 1)], stage="t"
        )


def test_a_request_for_another_backend_is_refused(server: Server, cache: CallCache) -> None:
    with pytest.raises(ValueError, match="the request is for openai"):
        Engine(cache, endpoint(server)).ask_all(
            [Request("openai", "m", [{"role": "user", "content": "x"}])], stage="t"
        )
    assert not server.bodies


def test_the_key_is_in_no_file(server: Server, tmp_path: Path) -> None:
    with open_cache(tmp_path / "c" / "calls.sqlite") as cache:
        Engine(cache, endpoint(server)).ask_all(rows(3), stage="t")
        assert server.keys == {f"Bearer {SECRET}"}
        for path in (tmp_path / "c").iterdir():
            assert SECRET.encode() not in path.read_bytes()
    assert SECRET not in repr(endpoint(server))


def test_answers_that_cannot_be_stored_are_not_handed_on(server: Server, tmp_path: Path) -> None:
    with open_cache(tmp_path / "calls.sqlite") as cache:
        other = sqlite3.connect(tmp_path / "calls.sqlite")
        other.execute("CREATE TRIGGER full BEFORE INSERT ON calls BEGIN SELECT RAISE(ABORT, 'no room'); END")
        other.close()
        with pytest.raises(CallCacheError, match=r"could not be stored \(no room\)"):
            Engine(cache, endpoint(server, 1)).ask_all(rows(50), stage="t")
        assert cache.count() == 0


@pytest.mark.parametrize("places", [1, 8])
def test_where_answers_cannot_be_stored_only_those_under_way_are_lost(
    server: Server, tmp_path: Path, places: int
) -> None:
    with open_cache(tmp_path / "calls.sqlite") as cache:
        other = sqlite3.connect(tmp_path / "calls.sqlite")
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON calls WHEN (SELECT count(*) FROM calls) >= 20 "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        other.close()
        with pytest.raises(CallCacheError, match="no room"):
            Engine(cache, endpoint(server, places)).ask_all(rows(200), stage="t")
        assert cache.count() <= 20
        assert cache.count() < len(server.bodies) <= cache.count() + places


def test_importing_the_engine_is_light() -> None:
    code = (
        "import sys, pipeline.engine, pipeline.models; "
        "heavy = {'openai', 'torch', 'xllamacpp', 'aiohttp', 'huggingface_hub'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0
