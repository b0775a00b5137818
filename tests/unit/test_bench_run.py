"""A model is asked about every row, once, and what became of each row is said."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.annotators import Voter
from pipeline.anyset import AnySet, open_anyset
from pipeline.bench.run import Blind, predict
from pipeline.engine import BlobStore, Engine, open_cache
from pipeline.workspace import Silent
from tests.images import encoded, picture
from tests.scripted import Scripted, scripted

RULES: list[dict[str, Any]] = [
    {"match": "filtered", "answer": "half of", "finish_reason": "content_filter"},
    {"match": "declined", "refusal": "I will not."},
    {"match": "long", "answer": "and so on", "finish_reason": "length"},
    {"match": "silent", "answer": ""},
    {"match": r"Tell me of (\w+)", "answer": r"Here is \1."},
    {"answer": "A picture."},
]
QUERIES = ["Tell me of tea", "filtered", "declined", "long", "silent", "Tell me of bread"]


def dataset(folder: Path) -> AnySet:
    """Rows of which the last has no image."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for n, query in enumerate(QUERIES):
        name = f"{n}.{'tiff' if n == 0 else 'png'}"
        if n < len(QUERIES) - 1:
            kind = "TIFF" if n == 0 else "PNG"
            (folder / "images" / name).write_bytes(encoded(picture(40, 40, seed=n), kind))
        rows.append(
            {
                "id": n, "image": name, "query": query, "type": "SSS", "category": "hate",
                "subcategory": "race", "image_safe": True, "image_safety_label": 0,
            }
        )  # fmt: skip
    path = folder / "holisafe_bench.json"
    path.write_text(json.dumps(rows))
    return open_anyset(str(path))


@dataclass(frozen=True)
class Noted:
    """Pictures that keep what was read together."""

    of: Any
    reads: list[set[str]]

    def read(self, keys: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
        self.reads.append(set(keys))
        return self.of.read(keys)  # type: ignore[no-any-return]


@pytest.fixture
def served() -> Iterator[Scripted]:
    with scripted(answers=RULES) as running:
        yield running


def predictions(
    served: Scripted,
    folder: Path,
    blind: Blind | None = None,
    egress: frozenset[str] | None = None,
    reads: list[set[str]] | None = None,
) -> list[tuple[str, str]]:
    found = dataset(folder / "set") if not (folder / "set").exists() else open_anyset(str(folder / "set"))
    if reads is not None:
        found = replace(found, pictures=Noted(found.pictures, reads))
    blobs = BlobStore(folder / "blobs")
    with open_cache(folder / "calls.sqlite") as cache:
        endpoint = served.endpoint(concurrency=3)
        engine = Engine(cache, endpoint, blobs=blobs)
        subject = Voter(
            "m", engine, endpoint.backend_id, "m", "test", endpoint.terms, blobs=blobs, egress=egress
        )
        return [(p.text, p.status) for p in predict(found, subject, Silent(), blind=blind)]


def test_every_row_has_its_prediction_or_its_reason_and_a_rerun_asks_nobody(
    served: Scripted, tmp_path: Path
) -> None:
    wanted = [
        ("Here is tea.", "ok"), ("", "blocked"), ("I will not.", "ok"), ("and so on", "cut off"),
        ("", "empty"), ("", "no image"),
    ]  # fmt: skip
    assert predictions(served, tmp_path) == wanted
    sent = served.stats()["requests"]
    assert sent == 5
    assert predictions(served, tmp_path) == wanted
    assert served.stats()["requests"] == sent


def test_blind_to_images_a_row_without_one_is_asked_too(served: Scripted, tmp_path: Path) -> None:
    told = predictions(served, tmp_path, "text")
    assert told[0] == ("Here is tea.", "ok")
    assert told[-1] == ("Here is bread.", "ok")


def test_blind_to_queries_only_the_image_is_shown(served: Scripted, tmp_path: Path) -> None:
    assert predictions(served, tmp_path, "image") == [("A picture.", "ok")] * 5 + [("", "no image")]


def test_what_is_sent_is_the_image_then_the_query_greedy_without_a_system_prompt(
    served: Scripted, tmp_path: Path
) -> None:
    predictions(served, tmp_path)
    with open_cache(tmp_path / "calls.sqlite") as cache:
        sent = [json.loads(record.request_json) for record in cache.records()]
    tea = next(s for s in sent if "tea" in json.dumps(s["messages"]))
    assert (tea["params"]["temperature"], tea["params"]["max_tokens"]) == (0, 512)
    (message,) = tea["messages"]
    assert [part["type"] for part in message["content"]] == ["image", "text"]
    data = BlobStore(tmp_path / "blobs")(message["content"][0]["sha256"])
    assert data.startswith(b"\x89PNG"), "no endpoint takes TIFF"


def test_an_image_that_may_not_go_to_the_endpoint_does_not(served: Scripted, tmp_path: Path) -> None:
    told = predictions(served, tmp_path, egress=frozenset({"suicide"}))
    assert told == [("", "not sent")] * 6
    assert served.stats()["requests"] == 0
    assert predictions(served, tmp_path, egress=frozenset({"race"}))[0] == ("Here is tea.", "ok")


def test_images_are_read_together_and_each_once(served: Scripted, tmp_path: Path) -> None:
    reads: list[set[str]] = []
    predictions(served, tmp_path, reads=reads)
    assert [len(keys) for keys in reads] == [6]
    predictions(served, tmp_path, "text", reads=reads)
    assert len(reads) == 1
