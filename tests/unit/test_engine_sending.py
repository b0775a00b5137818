"""How calls go to an endpoint that has its ways: forms of answers, first errors, limits, budgets, faults."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import (
    TOTAL,
    Answer,
    Budget,
    BudgetError,
    Call,
    CallCache,
    EndpointError,
    Engine,
    RemoteEndpoint,
    Request,
    Terms,
    open_cache,
)
from pipeline.engine.answers import BadReplyError, record_of
from pipeline.engine.scripted import ScriptedEndpoint
from tests.scripted import Verdict, items, scripted

CANARY = "sk-canary-4b1d9f"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CallCache]:
    with open_cache(tmp_path / "calls.sqlite") as opened:
        yield opened


def reasons(answers: list[Answer]) -> list[str]:
    return [answer.value.reason for answer in answers if isinstance(answer.value, Verdict)]


@pytest.mark.parametrize(
    ("supports", "rejected"), [(["json_schema", "tools"], 0), (["tools"], 1), ([], 2)], ids=str
)
def test_a_structured_answer_is_asked_for_as_the_server_can(
    cache: CallCache, supports: list[str], rejected: int
) -> None:
    with scripted(supports=supports) as served:
        answers = Engine(cache, served.endpoint(concurrency=4)).ask_all(items(served, 20), stage="t")
        assert reasons(answers) == [f"item {i}" for i in range(20)]
        stats = served.stats()
        assert (stats["by_outcome"].get("400", 0), stats["by_outcome"]["ok"]) == (rejected, 20)
    assert all(a.cached for a in Engine(cache, served.endpoint()).ask_all(items(served, 20), stage="t"))


def test_json_in_a_code_fence_is_read_and_other_text_is_not(cache: CallCache) -> None:
    good = '```json\n{"reason": "r", "unsafe": true}\n```'
    with scripted(answers=[{"match": "item 0", "answer": good}, {"answer": f"Sure! {good}"}]) as served:
        fenced, chatty = Engine(cache, served.endpoint()).ask_all(items(served, 2), stage="t")
    assert fenced.value == Verdict(reason="r", unsafe=True)
    assert (chatty.status, chatty.attempts) == ("unscorable", 3)


@pytest.mark.parametrize(
    ("script", "key", "says"),
    [
        ({"api_key": CANARY}, "sk-wrong-77aa", "Incorrect API key"),
        ({"models": ["another"]}, "none", "'m' does not exist"),
        ({"faults": {"garbled": 1.0}}, "none", "does not speak the OpenAI protocol"),
        ({"answers": [{"match": "never", "answer": "x"}]}, "none", "rejected 5 calls in a row"),
    ],
    ids=["wrong key", "no such model", "not OpenAI", "every call rejected"],
)
def test_what_is_wrong_with_all_calls_is_said_once(
    cache: CallCache, script: dict[str, Any], key: str, says: str
) -> None:
    with scripted(**script) as served:
        told = RemoteEndpoint(served.endpoint().backend_id, served.base_url, key, Terms(concurrency=64))
        with pytest.raises(EndpointError, match=says) as raised:
            Engine(cache, told).ask_all(items(served, 2000), stage="t")
        # Each of five rejected calls was tried in three forms.
        assert served.stats()["requests"] <= 15
    assert key == "none" or key not in f"{raised.value!r}"
    assert cache.count() == 0


def test_a_url_without_an_api_is_said_once(cache: CallCache) -> None:
    with scripted() as served:
        wrong = RemoteEndpoint(served.endpoint().backend_id, served.base_url.removesuffix("/v1"), "none")
        with pytest.raises(EndpointError, match=r"404.*check the endpoint's base_url"):
            Engine(cache, wrong).ask_all(items(served, 500), stage="t")


def test_an_image_larger_than_the_endpoint_takes_is_not_sent(cache: CallCache) -> None:
    small, large = b"\x89PNG\r\n\x1a\n" + b"0" * 50, b"\x89PNG\r\n\x1a\n" + b"0" * 5000
    blobs = {hashlib.sha256(data).hexdigest(): data for data in (small, large)}
    with scripted(max_image_bytes=1000) as served:
        backend = served.endpoint().backend_id
        requests = [
            Request(
                backend,
                "m",
                [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "item 1"}, {"type": "image", "sha256": sha}],
                    }
                ],
            )
            for sha in blobs
        ]
        told = Engine(cache, served.endpoint(max_image_bytes=1000), blobs=blobs.__getitem__)
        good, bad = told.ask_all(requests, stage="t")
        assert (good.status, bad.status, served.stats()["requests"]) == ("ok", "error", 1)
        assert "5008 bytes, and the endpoint takes 1000" in bad.error
        untold = Engine(cache, served.endpoint(), blobs=blobs.__getitem__)
        _, bad = untold.ask_all(requests, stage="t")
        assert bad.status == "error"
        assert "HTTP 413" in bad.error
    assert base64.b64encode(small)[:20].decode() not in next(cache.records()).request_json


def test_faults_make_no_wrong_row_and_lose_none(cache: CallCache) -> None:
    shares = {"status_429": 0.05, "status_500": 0.05, "stalled": 0.02, "closed": 0.02, "garbled": 0.02}
    shares |= {"truncated": 0.05, "invalid": 0.05, "retry_after_s": 0.1}
    with scripted(faults=shares) as served:
        engine = Engine(cache, served.endpoint(concurrency=32, timeout_s=1))
        answers = engine.ask_all(items(served, 300), stage="t")
        struck = served.stats()["by_outcome"]
    assert all(struck[name] for name in ("429", "500", "truncated", "invalid"))
    for i, answer in enumerate(answers):
        assert answer.status in ("ok", "unscorable")
        assert answer.status != "ok" or reasons([answer]) == [f"item {i}"]
    cut_off = [a for a in answers if a.status == "unscorable"]
    assert {a.error for a in cut_off} == {"finish_reason length"}


def test_one_429_keeps_nobody_else(cache: CallCache) -> None:
    with scripted(latency_ms=10, faults={"status_429": 0.02, "retry_after_s": 1}) as served:
        began = time.monotonic()
        Engine(cache, served.endpoint(concurrency=32)).ask_all(items(served, 400), stage="t")
        # 2 % of 400 one after the other would take eight seconds.
        assert time.monotonic() - began < 5
        assert served.stats()["by_outcome"]["429"] >= 3


def test_the_cap_stops_the_run_and_a_higher_one_resumes_it(cache: CallCache) -> None:
    with scripted() as served:
        terms: dict[str, Any] = {"concurrency": 8, "prompt_price": 0.0, "completion_price": 1000.0}
        told = served.endpoint(**terms)
        # Each answer costs at most 50 tokens, a twentieth of a dollar, and in truth about a quarter of that.
        worst = items(served, 1)[0].worst_cost(told.terms)
        assert worst == pytest.approx(0.05)
        with pytest.raises(BudgetError, match=r"raise budget\.total"):
            Engine(cache, told, budget=Budget.of(cache, {TOTAL: 1.0})).ask_all(items(served, 400), stage="t")
        spent = sum(use.cost_usd for use in cache.usage())
        assert 1.0 - worst < spent <= 1.0
        done = cache.count()
        answers = Engine(cache, told, budget=Budget.of(cache, {TOTAL: 50.0})).ask_all(
            items(served, 400), stage="t"
        )
        assert {a.status for a in answers} == {"ok"}
        assert served.stats()["requests"] == 400
        assert [a.cached for a in answers].count(True) == done


def test_a_canary_key_is_nowhere(cache: CallCache, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    import traceback

    with scripted(api_key=CANARY) as served:
        Engine(cache, served.endpoint()).ask_all(items(served, 3), stage="t")
        told = served.endpoint()
        wrong = RemoteEndpoint(told.backend_id, served.base_url, CANARY + "x")
        try:
            Engine(cache, wrong).ask_all(items(served, 5), stage="t")
        except EndpointError as error:
            shown = "".join(traceback.format_exception(error))
    assert CANARY not in shown
    assert CANARY not in caplog.text
    assert CANARY not in repr((told, wrong, served.script))
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes()


def test_a_reply_that_does_not_count_its_tokens_is_not_free() -> None:
    call = Call("k", "b", "m", "s", 1, "x" * 1000)
    reply = {"choices": [{"message": {"content": "y" * 100}, "finish_reason": "stop"}]}
    terms = Terms(prompt_price=1.0, completion_price=10.0)
    assert record_of(call, reply, terms).cost_usd == pytest.approx((1000 * 1 + 100 * 10) / 1e6)
    counted = {**reply, "usage": {"prompt_tokens": 250, "completion_tokens": 25}}
    assert record_of(call, counted, terms).cost_usd == pytest.approx((250 * 1 + 25 * 10) / 1e6)


def test_an_odd_reply_costs_only_its_own_row() -> None:
    call = Call("k", "b", "m", "s", 1, "{}")
    for message in ({"content": ["x"]}, {"tool_calls": [{}]}, {"tool_calls": "x"}, {"refusal": {"a": 1}}):
        with pytest.raises(BadReplyError, match=r"odd shape|no text"):
            record_of(call, {"choices": [{"message": message, "finish_reason": "stop"}]}, Terms())


def test_a_limit_holds_from_one_run_to_the_next_and_a_run_can_be_stopped(cache: CallCache) -> None:
    with scripted() as served:
        engine = Engine(cache, served.endpoint(requests_per_minute=5))
        engine.ask_all(items(served, 5), stage="t")
        ended: list[BaseException] = []

        def more() -> None:
            try:
                engine.ask_all(items(served, 10), stage="t")
            except asyncio.CancelledError as error:
                ended.append(error)

        thread = threading.Thread(target=more)
        thread.start()
        time.sleep(0.5)
        assert served.stats()["requests"] == 5
        engine.stop()
        thread.join(timeout=5)
        assert not thread.is_alive()
        assert len(ended) == 1
        assert served.stats()["requests"] == 5


def test_what_is_sent_beside_the_parameters_cannot_undo_them() -> None:
    for extra in ({"max_tokens": 4000}, {"n": 5}, {"model": "another"}):
        with pytest.raises(ValueError, match="extra_body"):
            Request("b", "m", [{"role": "user", "content": "x"}], {"max_tokens": 5, "extra_body": extra})


def test_an_outage_is_told_as_one_that_another_run_may_mend(cache: CallCache) -> None:
    with scripted(faults={"status_429": 0.15, "retry_after_s": 1000}) as served:
        answers = Engine(cache, served.endpoint(concurrency=2)).ask_all(items(served, 40), stage="t")
    failed = [a for a in answers if a.status == "error"]
    assert failed
    assert all(a.again and "asks to wait 1000 s" in a.error for a in failed)
    with scripted(faults={"status_429": 1.0, "retry_after_s": 1000}) as served:
        with pytest.raises(EndpointError, match=r"does not answer .* asks to wait 1000 s"):
            Engine(cache, served.endpoint()).ask_all(items(served, 400), stage="t")
        assert served.stats()["requests"] <= 5


def test_another_script_than_the_one_in_params_is_refused(cache: CallCache) -> None:
    with scripted() as served, scripted(seed=2) as other:
        told = ScriptedEndpoint.of(other.script, served.base_url, Terms())
        with pytest.raises(EndpointError, match=r"serves scripted:\w+, and params name the script"):
            Engine(cache, told).ask_all(items(other, 5), stage="t")
        assert served.stats()["requests"] == 0
        Engine(cache, served.endpoint()).ask_all(items(served, 5), stage="t")
