"""distilabel under measurement, in an environment of its own (see `peers`).

python peer_distilabel.py URL COUNT CACHE_DIR
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from peer_report import IN_FLIGHT, MAX_TOKENS, MODEL, SYSTEM, TEMPERATURE, arguments, report
from pydantic import BaseModel


class Verdict(BaseModel):
    """The answer that is asked for."""

    reason: str
    unsafe: bool


def pipeline(url: str, count: int, cache_dir: str) -> Pipeline:
    """Load the numbered questions, generate their answers."""
    with Pipeline(name="judge", cache_dir=cache_dir) as made:
        rows = [{"number": number, "instruction": f"item {number}"} for number in range(count)]
        load = LoadDataFromDicts(name="load", data=rows, batch_size=IN_FLIGHT)
        llm = OpenAILLM(
            model=MODEL,
            base_url=url,
            api_key="none",
            structured_output={"schema": Verdict},
            generation_kwargs={"temperature": TEMPERATURE, "max_new_tokens": MAX_TOKENS},
        )
        ask = TextGeneration(
            name="ask",
            llm=llm,
            system_prompt=SYSTEM,
            input_batch_size=IN_FLIGHT,
            add_raw_input=False,
            add_raw_output=False,
        )
        load >> ask
    return made


def main() -> None:
    """Ask, and print what came of it."""
    args = arguments(__doc__)
    made = pipeline(args.url, args.count, args.cache_dir)
    began = time.perf_counter()
    answered = made.run()["default"]["train"]
    seconds = time.perf_counter() - began

    def rows() -> Iterator[tuple[int, object, object]]:
        for row in answered:
            said = json.loads(row["generation"]) if row["generation"] else {}
            yield row["number"], said.get("reason"), said.get("unsafe")

    report(seconds, rows(), args.count)


if __name__ == "__main__":
    main()
