"""Pictures that an endpoint makes: paid once, kept by hash, refused, stopped by a budget."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.engine import (
    BlobStore,
    Budget,
    BudgetError,
    CallCache,
    EndpointError,
    Engine,
    ImageRequest,
    Request,
    open_cache,
)
from tests.conftest import REPOSITORY
from tests.scripted import Scripted, scripted

PRICE = 0.04


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CallCache]:
    with open_cache(tmp_path / "calls.sqlite") as opened:
        yield opened


def pictures(backend_id: str, count: int, **params: Any) -> list[Request]:
    """Pictures of `jar 0`, `jar 1` and so on."""
    params = {"size": "64x48", **params}
    return [
        ImageRequest(backend_id, "m", [{"role": "user", "content": f"jar {i}"}], params) for i in range(count)
    ]


def engine(cache: CallCache, served: Scripted, blobs: BlobStore, **more: Any) -> Engine:
    terms = {"made_image_price": PRICE, "concurrency": 4}
    return Engine(cache, served.endpoint(**terms), keep=blobs.put, **more)


def test_a_picture_is_paid_once_and_kept_by_hash(cache: CallCache, tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    with scripted() as served:
        asked = pictures(served.endpoint().backend_id, 6)
        first = engine(cache, served, blobs).ask_all(asked, stage="generate")
        again = engine(cache, served, blobs).ask_all(asked, stage="generate")
        assert served.stats()["requests"] == 6
    assert [a.raw for a in first] == [a.raw for a in again]
    assert all(a.status == "ok" and a.cached for a in again)
    shas = {json.loads(answer.raw)["sha256"] for answer in first}
    assert len(shas) == 6
    assert {Image.open(io.BytesIO(blobs(sha))).size for sha in shas} == {(64, 48)}
    (use,) = cache.usage()
    assert (use.stage, use.calls, use.cost_usd) == ("generate", 6, pytest.approx(6 * PRICE))


def test_faults_cost_no_second_picture(cache: CallCache, tmp_path: Path) -> None:
    faults = {"status_429": 0.2, "retry_after_s": 0.01, "status_500": 0.1, "garbled": 0.1, "closed": 0.05}
    with scripted(faults=faults) as served:
        asked = pictures(served.endpoint().backend_id, 12)
        answers = engine(cache, served, BlobStore(tmp_path / "blobs")).ask_all(asked, stage="generate")
        assert served.stats()["by_outcome"]["ok"] == 12
        assert served.stats()["requests"] > 12
    assert {answer.status for answer in answers} == {"ok"}


def test_a_refused_prompt_is_blocked_and_costs_nothing(cache: CallCache, tmp_path: Path) -> None:
    with scripted(answers=[{"match": "jar 1", "refusal": "no"}]) as served:
        asked = pictures(served.endpoint().backend_id, 3)
        answers = engine(cache, served, BlobStore(tmp_path / "blobs")).ask_all(asked, stage="generate")
    assert [answer.status for answer in answers] == ["ok", "blocked", "ok"]
    assert cache.count() == 2


def test_the_budget_stops_pictures(cache: CallCache, tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    with scripted() as served:
        asked = pictures(served.endpoint().backend_id, 8)
        capped = engine(cache, served, blobs, budget=Budget.of(cache, {"generate": 5 * PRICE}))
        with pytest.raises(BudgetError, match=r"budget\.stages\.generate"):
            capped.ask_all(asked, stage="generate")
        assert served.stats()["requests"] == cache.count() == 5
        engine(cache, served, blobs).ask_all(asked, stage="generate")
        assert served.stats()["requests"] == 8


def test_a_wrong_key_is_said_once(cache: CallCache, tmp_path: Path) -> None:
    with scripted(api_key="right-and-long") as served:
        wrong = type(served.endpoint())(served.endpoint().backend_id, served.base_url, "wrong-and-long")
        asked = pictures(wrong.backend_id, 20)
        with pytest.raises(EndpointError, match="its key"):
            Engine(cache, wrong, keep=BlobStore(tmp_path / "blobs").put).ask_all(asked, stage="generate")
        assert served.stats()["requests"] == 1


def test_a_url_in_place_of_bytes_is_refused_and_not_asked_for_again(cache: CallCache, tmp_path: Path) -> None:
    with scripted(faults={"invalid": 1.0}) as served:
        asked = pictures(served.endpoint().backend_id, 20)
        with pytest.raises(EndpointError, match="b64_json"):
            engine(cache, served, BlobStore(tmp_path / "blobs")).ask_all(asked, stage="generate")
        assert served.stats()["requests"] == 1
    assert cache.count() == 0


def test_kill_9_loses_no_picture_that_was_committed(tmp_path: Path) -> None:
    with scripted(latency_ms=20) as served:
        program = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from pipeline.engine import *
from tests.unit.test_engine_images import pictures
backend = {served.endpoint().backend_id!r}
there = RemoteEndpoint(backend, {served.base_url!r}, "none", Terms(concurrency=4))
with open_cache(Path({str(tmp_path / "calls.sqlite")!r})) as cache:
    keep = BlobStore(Path({str(tmp_path / "blobs")!r})).put
    Engine(cache, there, keep=keep).ask_all(pictures(backend, 200), stage="generate")
"""
        child = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY)
        deadline = time.monotonic() + 60
        while served.stats()["requests"] < 40 and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        blobs = BlobStore(tmp_path / "blobs")
        with open_cache(tmp_path / "calls.sqlite") as cache:
            kept, sent = cache.count(), served.stats()["requests"]
            assert sent - kept <= 4
            for record in cache.records():
                blobs(json.loads(record.response_text)["sha256"])
            asked = pictures(served.endpoint().backend_id, 200)
            answers = engine(cache, served, blobs).ask_all(asked, stage="generate")
        assert served.stats()["requests"] - sent == 200 - kept
    assert {answer.status for answer in answers} == {"ok"}


def test_the_same_prompt_as_a_chat_is_another_call() -> None:
    message = [{"role": "user", "content": "a jar"}]
    assert ImageRequest("b", "m", message).key != Request("b", "m", message).key
    body = ImageRequest("b", "m", message, {"size": "64x64"}).body()
    assert body == {"model": "m", "prompt": "a jar", "n": 1, "size": "64x64"}
    with pytest.raises(ValueError, match="n is set by the engine"):
        ImageRequest("b", "m", message, {"n": 2})
    with pytest.raises(ValueError, match="one message"):
        ImageRequest("b", "m", [*message, *message])
