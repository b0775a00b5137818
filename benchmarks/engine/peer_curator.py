"""bespoke-curator under measurement, in an environment of its own (see `peers`).

    python peer_curator.py URL COUNT CACHE_DIR

An `LLM` with a `response_format`, as its documentation shows it for OpenAI-compatible endpoints. Settings:

- `max_concurrent_requests` 64: what every client here may have under way.
- requests and tokens a minute far out of reach: it budgets 4,096 tokens an answer for a model that it does
  not know, and would wait for its own defaults, not for the endpoint.
- working directory: CACHE_DIR, where it keeps its answers and finds them again.
- everything else as it comes: 10 attempts, and no rows left out in silence (`require_all_responses`).

Its answers are its cache; there is no faster setting without it.
"""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bespokelabs import curator
from peer_report import IN_FLIGHT, MAX_TOKENS, MODEL, SYSTEM, TEMPERATURE, arguments, report
from pydantic import BaseModel

OUT_OF_REACH = 1_000_000_000


class Verdict(BaseModel):
    """The answer that is asked for."""

    reason: str
    unsafe: bool


class Judge(curator.LLM):
    """Numbered questions."""

    response_format = Verdict

    def prompt(self, input: dict[str, Any]) -> str:
        """The question of one row."""
        return f"item {input['number']}"

    def parse(self, input: dict[str, Any], response: Verdict) -> dict[str, Any]:
        """The row of one answer."""
        return {"number": input["number"], "reason": response.reason, "unsafe": response.unsafe}


def main() -> None:
    """Ask, and print what came of it."""
    args = arguments(__doc__)
    litellm = find_spec("litellm")
    if litellm is not None and litellm.origin:
        tokenizers = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(tokenizers))
    judge = Judge(
        model_name=MODEL,
        backend="openai",
        system_prompt=SYSTEM,
        generation_params={"temperature": TEMPERATURE, "max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": args.url,
            "api_key": "none",
            "max_concurrent_requests": IN_FLIGHT,
            "max_requests_per_minute": OUT_OF_REACH,
            "max_tokens_per_minute": OUT_OF_REACH,
        },
    )
    rows = [{"number": number} for number in range(args.count)]
    began = time.perf_counter()
    answered = judge(rows, working_dir=args.cache_dir).dataset
    seconds = time.perf_counter() - began
    report(seconds, ((row["number"], row["reason"], row["unsafe"]) for row in answered), args.count)


if __name__ == "__main__":
    main()
