"""The scripted endpoint over real sockets, asked by the real client where that can ask."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from pydantic import ValidationError

from pipeline.engine import scripted as scripted_module
from pipeline.engine.scripted import (
    Answerer,
    Script,
    ScriptedServer,
    backend_id,
    load_script,
    serve,
)
from pipeline.engine.scripted import batches as batch_module
from pipeline.engine.scripted import replies as replies_module
from schemas.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-script-0123456789"
ANSWERS = [
    {"match": r"item (\d+)", "answer": {"reason": r"item \1", "of": [r"\1"], "unsafe": False}},
    {"match": r"say (?P<what>\w+)", "answer": r"you said \g<what>, not \d"},
    {"match": "word", "answer": "unsafe", "logprobs": {"safe": -1.5, "unsafe": -0.25, "the": -7}},
    {"match": "forbid", "refusal": "I cannot."},
]
TOOLS = {
    "tools": [{"type": "function", "function": {"name": "give", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "give"}},
}
SCHEMA_FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def script(**fields: Any) -> Script:
    return Script.model_validate({"version": 1, "seed": 7, "models": ["m"], "answers": ANSWERS} | fields)


def ask(text: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


class Clock:
    """Stands in for the module `time`: only the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.8e9 + self.now


class Served:
    """A running server, and plain HTTP to it."""

    def __init__(self, server: ScriptedServer, base_url: str, session: aiohttp.ClientSession) -> None:
        self.server, self.base_url, self.session = server, base_url, session

    async def post(self, body: Any, key: str = "any") -> tuple[int, Any, Any]:
        """Status, headers, and the body: parsed where it is JSON."""
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{self.base_url}/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as response:
            text = await response.text()
            parsed = json.loads(text) if response.content_type == "application/json" else text
            return response.status, response.headers, parsed

    async def get(self, path: str) -> Any:
        async with self.session.get(self.base_url.removesuffix("/v1") + path) as response:
            return await response.json()

    def openai(self, key: str = "any") -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.base_url, api_key=key, max_retries=0)


@asynccontextmanager
async def served(**fields: Any) -> AsyncIterator[Served]:
    server = ScriptedServer(script(**fields))
    base_url = await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Served(server, base_url, session)
    finally:
        await server.stop()


@in_loop
async def test_the_first_rule_that_matches_the_last_user_message_answers() -> None:
    async with served() as running, running.openai() as client:
        messages: list[Any] = [
            {"role": "system", "content": "say nothing"},
            {"role": "user", "content": "item 1"},
            {"role": "assistant", "content": "say what"},
            {"role": "user", "content": [{"type": "text", "text": "of item 23"}]},
        ]
        reply = await client.chat.completions.create(model="m", messages=messages)
        text = '{"reason": "item 23", "of": ["23"], "unsafe": false}'
        assert reply.choices[0].message.content == text
        assert (reply.model, reply.choices[0].finish_reason) == ("m", "stop")
        characters = len("say nothing" + "item 1" + "say what" + "of item 23")
        assert reply.usage is not None
        assert reply.usage.prompt_tokens == -(-characters // 4)
        assert reply.usage.completion_tokens == -(-len(text) // 4)
        assert [model.id async for model in client.models.list()] == ["m"]
        reply = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "say x"}]
        )
        assert reply.choices[0].message.content == r"you said x, not \d"
        reply = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "forbid"}]
        )
        assert (reply.choices[0].message.content, reply.choices[0].message.refusal) == (None, "I cannot.")
        counts = await by_outcome(running)
        assert (counts["ok"], counts["refused"]) == (2, 1)


def test_a_rule_may_look_at_earlier_user_messages_too() -> None:
    told = script(answers=[{"match": r"item (\d+)", "answer": r"\1", "earlier": True}, {"answer": "none"}])
    answerer = Answerer(told)

    def answer(*texts: str) -> Any:
        messages = [{"role": "user", "content": text} for text in texts]
        return answerer.receive({"model": "m", "messages": messages}).body["choices"][0]["message"]["content"]

    assert answer("item 1", "That answer is not valid") == "1"
    assert answer("item 1", "item 2", "again") == "2"
    assert answer("hello", "again") == "none"


async def by_outcome(running: Served) -> dict[str, int]:
    counts: dict[str, int] = (await running.get("/stats"))["by_outcome"]
    return counts


def image(size: int) -> list[dict[str, Any]]:
    url = f"data:image/png;base64,{base64.b64encode(bytes(size)).decode()}"
    return [{"type": "text", "text": "item 1"}, {"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(
    ("fields", "body", "status", "says", "code"),
    [
        ({}, {**ask("item 1"), "model": "other"}, 404, "'other' does not exist", "model_not_found"),
        ({}, ask("nothing known"), 400, "No rule of the script matches 'nothing known'", None),
        ({}, "a text", 400, "not a JSON object", None),
        ({}, {"model": "m"}, 400, "messages is not a list", None),
        ({}, ask([{"type": "text"}]), 400, "messages has a part", None),
        ({}, ask(5), 400, "messages has a part", None),
        ({}, ask("item 1", stream=True), 400, "stream is not supported", None),
        ({}, ask("item 1", tool_choice={"type": "function"}), 400, "tool_choice names no tool", None),
        ({"supports": ["tools"]}, ask("item 1", response_format=SCHEMA_FORM), 400, "response_format", None),
        ({"supports": ["json_schema"]}, ask("item 1", **TOOLS), 400, "tools are not supported", None),
        ({"max_image_bytes": 100}, ask(image(101)), 413, "An image has 101 bytes, and 100 are", None),
    ],
)
@in_loop
async def test_what_cannot_be_answered_is_an_error_in_openais_form(
    fields: dict[str, Any], body: Any, status: int, says: str, code: str | None
) -> None:
    async with served(**fields) as running:
        got, _, reply = await running.post(body)
        assert (got, reply["error"]["code"]) == (status, code)
        assert says in reply["error"]["message"]
        assert (await by_outcome(running))[str(status)] == 1


@in_loop
async def test_what_is_supported_is_taken() -> None:
    async with served(max_image_bytes=100) as running:
        for body in (
            ask(image(100)),
            ask("item 1", response_format=SCHEMA_FORM),
            ask("item 1", response_format={"type": "json_object"}),
            ask("item 1", **TOOLS),
        ):
            assert (await running.post(body))[0] == 200
        async with running.session.post(f"{running.base_url}/chat/completions", data=b"{") as response:
            assert response.status == 400


@in_loop
async def test_a_wrong_key_is_401_and_no_key_is_ever_shown(capfd: pytest.CaptureFixture[str]) -> None:
    async with served(api_key=KEY) as running:
        status, headers, reply = await running.post(ask("item 1"), key="sk-wrong-9876543210")
        assert (status, reply["error"]["code"]) == (401, "invalid_api_key")
        assert (await running.post(ask("item 1"), key=KEY))[0] == 200
        async with running.session.get(f"{running.base_url}/models") as response:
            assert response.status == 401
            shown = await response.text()
        shown += json.dumps(reply) + str(headers) + json.dumps(await running.get("/stats"))
    output = capfd.readouterr()
    shown += repr(script(api_key=KEY)) + output.out + output.err
    assert KEY not in shown
    assert "sk-wrong" not in shown
    with pytest.raises(ValidationError) as raised:
        script(api_key=[KEY])
    assert KEY not in str(raised.value)


@in_loop
async def test_a_forced_tool_is_called_with_the_answer() -> None:
    async with served() as running, running.openai() as client:
        for choice in (TOOLS["tool_choice"], "required"):
            body: Any = ask("item 1", **{**TOOLS, "tool_choice": choice})
            reply = await client.chat.completions.create(**body)
            (call,) = reply.choices[0].message.tool_calls or []
            assert call.type == "function"
            assert (call.function.name, json.loads(call.function.arguments)["reason"]) == ("give", "item 1")
            assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (None, "tool_calls")
        free: Any = ask("item 1", **{**TOOLS, "tool_choice": "auto"})
        reply = await client.chat.completions.create(**free)
        assert (reply.choices[0].message.tool_calls, reply.choices[0].finish_reason) == (None, "stop")


@in_loop
async def test_log_probabilities_come_where_asked_for_and_supported() -> None:
    body: Any = ask("word", logprobs=True, top_logprobs=2)
    async with served() as running, running.openai() as client:
        reply = await client.chat.completions.create(**body)
        assert reply.choices[0].logprobs is not None
        (first,) = reply.choices[0].logprobs.content or []
        assert (first.token, first.logprob) == ("unsafe", -0.25)
        likely = [(item.token, item.logprob) for item in first.top_logprobs]
        assert likely == [("unsafe", -0.25), ("safe", -1.5)]
        for other in (ask("word"), ask("item 1", logprobs=True)):
            assert (await client.chat.completions.create(**other)).choices[0].logprobs is None
    async with served(supports=["tools"]) as running, running.openai() as client:
        assert (await client.chat.completions.create(**body)).choices[0].logprobs is None


@in_loop
async def test_each_fault_of_a_reply() -> None:
    whole = '{"reason": "item 1", "of": ["1"], "unsafe": false}'
    async with served(faults={"status_429": 1, "retry_after_s": 0.5}) as running:
        status, headers, _ = await running.post(ask("item 1"))
        assert (status, headers["Retry-After"]) == (429, "0.5")
        assert (await by_outcome(running))["429"] == 1
    async with served(faults={"status_500": 1}) as running:
        status, _, reply = await running.post(ask("item 1"))
        assert (status, reply["error"]["type"]) == (500, "server_error")
    async with served(faults={"truncated": 1}) as running:
        (choice,) = (await running.post(ask("item 1")))[2]["choices"]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == whole[: len(whole) // 2]
        (choice,) = (await running.post(ask("item 1", **TOOLS)))[2]["choices"]
        assert choice["finish_reason"] == "length"
        arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
        assert arguments == whole[: len(whole) // 2]
    async with served(faults={"invalid": 1}) as running:
        replies = [(await running.post(ask(f"item {i}")))[2]["choices"][0] for i in range(20)]
        assert {reply["finish_reason"] for reply in replies} == {"stop"}
        assert {reply["message"]["content"] for reply in replies} == set(replies_module.INVALID)
        assert (await by_outcome(running))["invalid"] == 20
    async with served(faults={"garbled": 1}) as running:
        status, _, text = await running.post(ask("item 1"))
        assert status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)


@in_loop
async def test_a_closed_connection_gives_no_reply_and_the_next_request_opens_another() -> None:
    async with served(faults={"closed": 1}) as running:
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectionError):
                await running.post(ask("item 1"))
        assert (await by_outcome(running))["closed"] == 2


@in_loop
async def test_a_stalled_socket_sends_nothing_and_then_closes() -> None:
    async with served(faults={"stalled": 1, "stall_s": 0.3}) as running:
        began = time.monotonic()
        with pytest.raises(aiohttp.ClientConnectionError):
            await running.post(ask("item 1"))
        assert time.monotonic() - began >= 0.3
    began = time.monotonic()
    async with served(faults={"stalled": 1}) as running:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(running.post(ask("item 1")), 0.1)
        waiting = asyncio.create_task(running.post(ask("item 2")))
        await asyncio.sleep(0.3)
        assert (await by_outcome(running))["stalled"] == 2
        await running.server.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await waiting
    assert time.monotonic() - began < 5, "neither clients that left nor the stop are waited for"


MIXED = {
    "status_429": 0.1,
    "status_500": 0.1,
    "stalled": 0.05,
    "closed": 0.05,
    "truncated": 0.1,
    "invalid": 0.1,
    "garbled": 0.1,
}


def outcomes(bodies: list[dict[str, Any]], **fields: Any) -> dict[str, list[str]]:
    """What became of each body, in the order of its receptions."""
    answerer = Answerer(script(faults=MIXED, **fields))
    became: dict[str, list[str]] = {}
    for body in bodies:
        became.setdefault(body["messages"][0]["content"], []).append(answerer.receive(body).outcome)
    return became


def test_the_seed_decides_whatever_the_order_and_a_retry_rolls_anew() -> None:
    bodies = [ask(f"item {i}", temperature=0) for i in range(300)] * 3
    shuffled = [dict(reversed(body.items())) for body in bodies]
    random.Random(1).shuffle(shuffled)  # noqa: S311 - to be repeated
    became = outcomes(bodies)
    assert outcomes(shuffled) == became
    assert outcomes(bodies, seed=8) != became
    assert any(first != "ok" and second == "ok" for first, second, _ in became.values())
    assert {outcome for tries in became.values() for outcome in tries} == {
        "ok",
        *(name.removeprefix("status_") for name in MIXED),
    }


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_faults_strike_at_their_rates(seed: int) -> None:
    count = 1500
    became = outcomes([ask(f"item {i}") for i in range(count)], seed=seed)
    counts = Counter(outcome for tries in became.values() for outcome in tries)
    for name, share in MIXED.items():
        # Five standard deviations.
        spread = 5 * (count * share * (1 - share)) ** 0.5
        assert abs(counts[name.removeprefix("status_")] - count * share) <= spread


def test_latency_has_jitter_and_a_seed() -> None:
    told = script(latency_ms=20, jitter_ms=10)
    waits = [Answerer(told).receive(ask(f"item {i}")).wait_s for i in range(50)]
    assert 0.02 <= min(waits) < max(waits) <= 0.03
    assert waits == [Answerer(told).receive(ask(f"item {i}")).wait_s for i in range(50)]


@in_loop
async def test_the_rate_limit_is_told_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(replies_module, "time", clock)
    async with served(requests_per_minute=2) as running:
        told = []
        for number in range(3):
            status, headers, reply = await running.post(ask(f"item {number}"))
            assert headers["x-ratelimit-limit-requests"] == "2"
            told.append(
                (status, headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-reset-requests"])
            )
            clock.now += 10.25
        assert told == [(200, "1", "1m0s"), (200, "0", "49.8s"), (429, "0", "39.5s")]
        assert (headers["Retry-After"], reply["error"]["code"]) == ("40", "rate_limit_exceeded")
        clock.now = 159.9
        status, headers, _ = await running.post(ask("item 2"))
        assert (status, headers["x-ratelimit-reset-requests"]) == (429, "100ms")
        clock.now = 160.0
        assert (await running.post(ask("item 2")))[0] == 200
    async with served() as running:
        assert "x-ratelimit-limit-requests" not in (await running.post(ask("item 1")))[1]


@in_loop
async def test_what_is_sent_is_counted_until_a_reset() -> None:
    async with served(latency_ms=300) as running:
        await asyncio.gather(*(running.post(ask(f"item {i % 3}")) for i in range(5)))
        stats = await running.get("/stats")
        assert stats == running.server.stats()
        counted = {name: stats[name] for name in ("requests", "distinct", "repeated", "peak_under_way")}
        assert counted == {"requests": 5, "distinct": 3, "repeated": 2, "peak_under_way": 5}
        assert stats["by_outcome"]["ok"] == 5
        async with running.session.post(running.base_url.removesuffix("/v1") + "/reset") as response:
            assert response.status == 200
        stats = running.server.stats()
        assert set(stats.pop("by_outcome").values()) == {0}
        assert set(stats.values()) == {0}


def lines(count: int, **fields: Any) -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": f"c{i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": ask(f"item {i}"),
                **fields,
            }
        ).encode()
        + b"\n"
        for i in range(count)
    )


async def submit(client: AsyncOpenAI, content: bytes, name: str = "n") -> Any:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(content), "in.jsonl", "batch")
    return await client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"name": name},
    )


async def results(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]


@in_loop
async def test_a_batch_goes_round_and_comes_back_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(batch_module, "time", clock)
    async with served(batch_s=100) as running, running.openai() as client:
        batch = await submit(client, lines(500))
        assert (batch.status, batch.metadata) == ("validating", {"name": "n"})
        for waited, status in ((5, "validating"), (15, "in_progress"), (99, "in_progress")):
            clock.now = 100.0 + waited
            batch = await client.batches.retrieve(batch.id)
            assert (batch.status, batch.output_file_id) == (status, None)
        clock.now = 200.0
        batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.error_file_id) == ("completed", None)
        counts = batch.request_counts
        assert counts is not None
        assert (counts.total, counts.completed, counts.failed) == (500, 500, 0)
        answered = await results(client, batch.output_file_id)
        ids = [line["custom_id"] for line in answered]
        assert ids != [f"c{i}" for i in range(500)]
        assert sorted(ids) == sorted(f"c{i}" for i in range(500))
        for line in answered:
            response = line["response"]
            assert (response["status_code"], line["error"]) == (200, None)
            text = response["body"]["choices"][0]["message"]["content"]
            assert json.loads(text)["reason"] == f"item {line['custom_id'][1:]}"
        again = await client.batches.retrieve(batch.id)
        assert again == batch
        stats = running.server.stats()
        assert (stats["batches"], stats["batch_lines"], stats["requests"]) == (1, 500, 0)
        assert (stats["distinct"], stats["by_outcome"]["ok"]) == (500, 500)


@in_loop
async def test_lines_that_fail_or_expire_are_in_the_error_file() -> None:
    async with (
        served(faults=MIXED, batch_expires=0.2, requests_per_minute=1) as running,
        running.openai() as client,
    ):
        created = await submit(client, lines(300))
        batch = await client.batches.retrieve(created.id)
        assert batch.status == "expired"
        assert batch.expired_at is not None
        answered = await results(client, batch.output_file_id)
        failed = await results(client, batch.error_file_id)
        assert len(answered) + len(failed) == 300
        finishes = Counter(line["response"]["body"]["choices"][0]["finish_reason"] for line in answered)
        assert finishes["length"] > 0
        kinds = Counter(
            line["error"]["code"] if line["error"] else line["response"]["status_code"] for line in failed
        )
        assert set(kinds) == {"batch_expired", 429, 500}
        counted = running.server.stats()["by_outcome"]
        assert (counted["batch_expired"], counted["500"]) == (kinds["batch_expired"], kinds[500])
        assert sum(counted.values()) == 300
        other = await submit(client, lines(300))
        other = await client.batches.retrieve(other.id)
        expired = {line["custom_id"] for line in failed if line["error"]}
        still = {line["custom_id"] for line in await results(client, other.error_file_id) if line["error"]}
        assert 0 < len(expired & still) < len(expired), "a second batch rolls anew"


@in_loop
async def test_batches_are_listed_newest_first_and_can_be_cancelled() -> None:
    async with served(batch_s=60) as running, running.openai() as client:
        made = [(await submit(client, lines(1), f"n{i}")).id for i in range(5)]
        page = await client.batches.list(limit=2)
        assert ([batch.id for batch in page.data], page.has_more) == (made[:2:-1], True)
        assert [batch.id async for batch in client.batches.list(limit=2)] == made[::-1]
        raw = await running.get(f"/v1/batches?limit=2&after={made[2]}")
        assert (raw["first_id"], raw["last_id"], raw["has_more"]) == (made[1], made[0], False)
        assert (await client.batches.cancel(made[0])).status == "cancelling"
        cancelled = await client.batches.retrieve(made[0])
        assert (cancelled.status, cancelled.output_file_id) == ("cancelled", None)
        with pytest.raises(ConflictError):
            await client.batches.cancel(made[0])
        for call in (client.batches.retrieve("batch_9"), client.files.content("file-9")):
            with pytest.raises(NotFoundError):
                await call
        for wrong in ({"limit": 0}, {"after": "batch_9"}):
            with pytest.raises(BadRequestError):
                await client.batches.list(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{\n", "invalid_json_line"),
        (b"{}\n", "missing_required_parameter"),
        (lines(2, custom_id="same"), "duplicate_custom_id"),
        (lines(1, url="/v1/responses"), "invalid_url"),
        (b"", "empty_file"),
    ],
)
@in_loop
async def test_a_wrong_input_file_fails_the_batch(content: bytes, code: str) -> None:
    async with served() as running, running.openai() as client:
        batch = await client.batches.retrieve((await submit(client, content)).id)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [problem.code for problem in batch.errors.data or []] == [code]
        assert running.server.stats()["batch_lines"] == 0


@in_loop
async def test_wrong_uploads_and_batches_are_refused() -> None:
    async with served() as running, running.openai() as client:
        with pytest.raises(BadRequestError, match="purpose"):
            await client.files.create(file=("in.jsonl", lines(1)), purpose="user_data")
        file = await client.files.create(file=("in.jsonl", lines(1)), purpose="batch")
        wrong: dict[str, Any]
        for wrong in ({"endpoint": "/v1/responses"}, {"input_file_id": "file-9"}):
            fields = {"input_file_id": file.id, "endpoint": "/v1/chat/completions"} | wrong
            with pytest.raises(BadRequestError):
                await client.batches.create(completion_window="24h", **fields)
        for path in ("/files", "/batches"):
            async with running.session.post(running.base_url + path, data=b"[]") as response:
                assert response.status == 400


def test_the_backend_id_is_the_script_without_its_key() -> None:
    plain = backend_id(script())
    assert re.fullmatch("scripted:[0-9a-f]{16}", plain)
    assert backend_id(script(api_key=KEY)) == plain
    assert backend_id(script(supports=["logprobs", "tools", "json_schema"], faults={})) == plain
    assert backend_id(script(seed=8)) != plain
    turned = [{"answer": {"a": 1, "b": 2}}], [{"answer": {"b": 2, "a": 1}}]
    assert len({backend_id(script(answers=answers)) for answers in turned}) == 2


def test_the_example_in_the_docs_loads(tmp_path: Path) -> None:
    document = scripted_module.__doc__ or ""
    example = textwrap.dedent("\n".join(line for line in document.splitlines() if line.startswith("    ")))
    (tmp_path / "script.yaml").write_text(example)
    told = load_script(tmp_path / "script.yaml")
    answerer = Answerer(told)
    body = {"model": "judge", "messages": [{"role": "user", "content": "item 5"}]}
    message = answerer.receive(body).body["choices"][0]["message"]
    assert message["content"] == '{"reason": "item 5", "unsafe": false}'
    (tmp_path / "script.json").write_text(json.dumps(yaml.safe_load(example)))
    assert load_script(tmp_path / "script.json") == told


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"faults": {"closed": 0.6, "garbled": 0.6}}, "faults: the shares sum up to more than 1"),
        ({"answers": [{"match": "(", "answer": ""}]}, "answers.0: match is not a regular expression"),
        ({"answers": [{"match": "x", "answer": {"a": [r"\1"]}}]}, "answers.0: refers to a group"),
        ({"answers": [{"match": "(x)", "refusal": r"\g<name>"}]}, "answers.0: refers to a group"),
        ({"answers": [{"match": "x"}]}, "answers.0: give an answer or a refusal"),
        ({"supports": ["vision"]}, "supports.0"),
        ({"latency": 5}, "latency: Extra inputs"),
        ({"version": 2}, "version:"),
    ],
)
def test_a_wrong_script_names_file_and_field(fields: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "seed": 1, "models": ["m"], "answers": ANSWERS} | fields))
    with pytest.raises(InputError) as raised:
        load_script(path)
    assert str(path) in str(raised.value)
    assert says in str(raised.value)


def test_serving_ends_with_a_signal_and_says_when_a_port_is_taken() -> None:
    program = (
        "from pipeline.engine.scripted import Script, serve\n"
        f"script = Script.model_validate_json({script().model_dump_json()!r})\n"
        "serve(script, 0, lambda url: print(url, flush=True))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/v1\n", child.stdout.readline())
        assert found is not None
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=5):
            with pytest.raises(InputError, match=f"port {found[1]}: cannot listen there"):
                serve(script(), int(found[1]), lambda url: None)
            child.send_signal(signal.SIGTERM)
            assert child.wait(timeout=10) == 0
