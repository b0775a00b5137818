"""Annotators that are asked together."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.annotators import TextItem, TextLLM, Voter, load_prompt, panel, vote_all
from pipeline.engine import EndpointError, Engine, open_cache
from pipeline.workspace import Silent
from tests.scripted import scripted

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("interrupted", [False, True], ids=["one fails", "interrupt"])
def test_endpoints_that_are_asked_at_once_stop_together(
    tmp_path: Path, interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = load_prompt(ROOT / "prompts" / "annotate" / "text_safe.yaml")
    texts = [TextItem(str(n), f"How do I bake bread number {n}?") for n in range(200)]
    with (
        scripted(answers=[{"answer": "safe"}], latency_ms=300) as slow,
        scripted(answers=[{"answer": "safe"}], seed=2, latency_ms=300) as other,
        open_cache(tmp_path / "calls.sqlite") as cache,
    ):
        voters = []
        for name, served in (("slow", slow), ("other", other)):
            told = served.endpoint(concurrency=2)
            if name == "other" and not interrupted:
                told = replace(told, base_url="http://127.0.0.1:9/v1")
            engine = Engine(cache, told, retries=0)
            voters.append(
                TextLLM(Voter(name, engine, told.backend_id, "m", name, told.terms), prompt, stage="t")
            )
        if interrupted:
            # As Ctrl-C does: the thread that waits is interrupted, and those that ask are not.
            def interrupt(_: object) -> list[object]:
                time.sleep(0.8)
                raise KeyboardInterrupt

            monkeypatch.setattr(panel, "as_completed", interrupt)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt if interrupted else EndpointError):
            vote_all(voters, texts, Silent())
        # Two hundred calls, two at once, would take half a minute.
        assert time.monotonic() - began < 10
        sent = slow.stats()["requests"]
        assert sent < 40
        assert cache.count() == sent + other.stats()["requests"], "what was under way is kept"
