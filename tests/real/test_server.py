"""The embedded server with real weights: an answer, its death, and no orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

from pipeline.engine import Engine, LlamaServer, Request, ServerDiedError, open_cache
from pipeline.models import ModelMissingError, locate, model_sha256

pytestmark = [pytest.mark.real, pytest.mark.llm, pytest.mark.timeout(600)]

MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"
ROOT = Path(__file__).resolve().parents[2]


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    colour: Literal["red", "green", "blue"]


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return locate(MODEL)
    except ModelMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def server(weights: Path, tmp_path: Path) -> Iterator[LlamaServer]:
    with LlamaServer(weights, model_sha256(MODEL), log=tmp_path / "llama.log", ctx_size=1024) as made:
        yield made


def question(server: LlamaServer, text: str) -> Request:
    messages = [{"role": "user", "content": f"{text} Answer in JSON with the field colour."}]
    params = {"temperature": 0, "max_tokens": 30, "extra_body": {"cache_prompt": True}}
    return Request(server.backend_id, MODEL, messages, params, Colour)


def test_answer_death_and_going_on(server: LlamaServer, tmp_path: Path) -> None:
    assert server.pid is None, "nothing starts before it is needed"
    with open_cache(tmp_path / "calls.sqlite") as cache:
        grass = question(server, "Which colour has grass?")
        (answer,) = Engine(cache, server).ask_all([grass], stage="test")
        assert answer.status == "ok"
        assert isinstance(answer.value, Colour)
        assert answer.completion_tokens > 0

        host = server.base_url.removesuffix("/v1")
        assert host.startswith("http://127.0.0.1:")
        call = urllib.request.Request(f"{host}/v1/chat/completions", b"{}")  # noqa: S310 - checked above
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(call)  # noqa: S310 - checked above
        assert refused.value.code == 401, "nobody else may use it"
        refused.value.close()
        assert server.pid is not None
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert server.api_key.encode() not in arguments
        assert server.api_key not in (tmp_path / "llama.log").read_text(errors="replace")

        os.kill(server.pid, signal.SIGKILL)
        sky = question(server, "Which colour has the sky?")
        with pytest.raises(ServerDiedError, match=r"signal 9.*llama\.log.*run the same command again"):
            Engine(cache, server).ask_all([sky], stage="test")
        (again,) = Engine(cache, server).ask_all([grass], stage="test")
        assert (again.cached, again.raw) == (True, answer.raw)


def test_the_numbers_behind_an_answer_do_not_depend_on_what_came_before(
    server: LlamaServer, tmp_path: Path
) -> None:
    # Long enough that the server does not take one question for the other; two items begin with one token.
    # Weights sorted for the processor show it; as they are served here, each of two mends is enough.
    rules = [f"Say in one word which colour {what} has, and never say more. " * 12 for what in "AB"]
    things = ["ahqo\nthe grass of a meadow", "zqyz\nthe sea at noon", "zlog\na tomato in a blue bowl"]
    params = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 5}

    def numbers(name: str, *asked: tuple[int, list[int]]) -> dict[tuple[int, int], object]:
        found: dict[tuple[int, int], object] = {}
        with open_cache(tmp_path / name) as cache:
            for rule, order in asked:
                warm = [{"role": "system", "content": rules[rule]}]
                calls = [
                    Request(server.backend_id, MODEL, [*warm, {"role": "user", "content": things[i]}], params)
                    for i in order
                ]
                answers = Engine(cache, server).ask_all(calls, stage="test", warm=warm)
                found |= {(rule, i): answer.first_tokens for i, answer in zip(order, answers, strict=True)}
        return found

    one = numbers("one.sqlite", (0, [0, 1, 2]), (1, [0, 1, 2]))
    other = numbers("other.sqlite", (1, [2]), (0, [2, 0]), (1, [1, 0]), (0, [1]))
    assert len(one) == 6
    assert one == other


def test_it_dies_with_its_parent(weights: Path, tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from pipeline.engine import LlamaServer
server = LlamaServer(Path({str(weights)!r}), "0", log=Path({str(tmp_path / "log")!r}), ctx_size=512)
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.1)
    assert not _runs(pid)


def test_weights_that_do_not_load_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not weights")
    with (
        LlamaServer(tmp_path / "bad.gguf", "0", log=tmp_path / "llama.log") as server,
        pytest.raises(ServerDiedError, match=r"bad\.gguf.*did not start.*llama\.log"),
    ):
        server.start()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
