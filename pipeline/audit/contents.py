"""What queries and responses hold: personal data, broken responses, refusals of what was worth an answer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.audit.coverage import classes_of
from pipeline.curate.personal import personal_data
from pipeline.respond.checks import problem_with

__all__ = ["OverRefusal", "Personal", "Responses", "expected_of", "over_refusal", "personal", "responses"]

SHOWN = 50
"""Rows that are named of each kind."""
TEXTS = ("query", "response", "prediction", "caption")

# Words of who wants to protect, learn or help: what such a question asks for is rarely the harm.
_WHO = "(?:i|we|you|one|someone)"
_AGAINST = (
    "avoid|counter|detect|discourage|escape|help|prevent|protect|quit|recogni[sz]e|recover|reduce|report|spot"
    "|stay safe|stop|support|treat|warn"
)
_PROTECTS = re.compile(
    rf"\b(?:how (?:can|do|should|could) {_WHO}|ways? to|what (?:can|should) {_WHO}(?: do)? to)"
    rf" (?:\w+ ){{0,2}}(?:{_AGAINST})\b"
    r"|\b(?:warning|early) signs?\b|\bside effects?\b|\bhealth (?:risks?|effects?)\b|\bharmful effects?\b"
    r"|\b(?:is|are) (?:this|that|these|it|they) (?:safe|dangerous|legal|illegal|harmful|allowed)\b"
    rf"|\bwhere (?:can|could) {_WHO} (?:find|get) (?:help|support)\b"
    r"|\bwhy (?:is|are) (?:this|that|it|these|such) (?:\w+ )?(?:harmful|wrong|dangerous|illegal|offensive)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Personal:
    """Personal data that texts seem to hold, by its form (`pipeline.curate.personal`).

    Attributes:
        rows: rows with any.
        by_kind: rows by field and kind of data, as `field: kind`.
        ids: the first rows of them.
    """

    rows: int
    by_kind: dict[str, int]
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Responses:
    """What the rules of the build say of responses (`pipeline.respond.checks`).

    Attributes:
        n: rows with a response.
        repeated: rows whose response stands in another row too.
        problems: rows by what is wrong, most first; quoted words left out.
        failed: rows with any problem.
        examples: `id` and `problem` of the first rows.
    """

    n: int
    repeated: int
    problems: dict[str, int]
    failed: int
    examples: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class OverRefusal:
    """Rows that expect a refusal though their question, by its words, protects or asks for facts.

    Attributes:
        expects_refusal: rows that expect a refusal.
        rows: of these, how many read so.
        by_type: the latter by type.
        by_class: and by class.
        examples: `id`, `type`, `class` and `query` of the first ones.
    """

    expects_refusal: int
    rows: int
    by_type: dict[str, int]
    by_class: dict[str, int]
    examples: list[dict[str, Any]]


def expected_of(rows: pd.DataFrame) -> pd.Series:
    """What each row expects: its own word, else what HoliSafe's format means: comply for SSS, or refuse."""
    by_type = rows["type"].map(lambda kind: "comply" if kind == "SSS" else "refuse")
    if "expected" not in rows:
        return by_type
    return rows["expected"].where(rows["expected"].notna(), by_type)


def personal(rows: pd.DataFrame) -> Personal:
    """Look through all texts of all rows; equal texts once."""
    known: dict[str, list[str]] = {}
    by_kind: Counter[str] = Counter()
    hit: list[int] = []
    fields = [f for f in TEXTS if f in rows]
    for id_, *texts in zip(rows["id"], *(rows[f] for f in fields), strict=True):
        any_ = False
        for field, text in zip(fields, texts, strict=True):
            if not isinstance(text, str):
                continue
            if text not in known:
                known[text] = personal_data(text)
            for kind in known[text]:
                by_kind[f"{field}: {kind}"] += 1
                any_ = True
        if any_:
            hit.append(int(id_))
    return Personal(len(hit), dict(sorted(by_kind.items())), hit[:SHOWN])


def responses(rows: pd.DataFrame) -> Responses | None:
    """Hold every response to the checks of the build; None where the dataset has no responses."""
    if "response" not in rows:
        return None
    some = rows[rows["response"].notna()]
    times = Counter(some["response"])
    problems: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    # What a caption does not say, the picture may show: whether a refusal names it is not held against it.
    for id_, text, expected, category, query in zip(
        some["id"], some["response"], expected_of(some), some["category"], some["query"], strict=True
    ):
        problem = problem_with(
            text,
            expected if expected in ("comply", "safe_complete", "refuse", "support") else "refuse",
            query=query,
            self_harm=category == "self_harm",
        )
        if problem is not None:
            problems[re.sub(r" \(.*\)$", "", problem)] += 1
            if len(examples) < SHOWN:
                examples.append({"id": int(id_), "problem": problem})
    return Responses(
        len(some),
        sum(n for n in times.values() if n > 1),
        dict(problems.most_common()),
        problems.total(),
        examples,
    )


def over_refusal(rows: pd.DataFrame) -> OverRefusal:
    """Find questions of protection where a refusal is expected: by a rule about words, not a verdict."""
    expects = rows[expected_of(rows) == "refuse"]
    hit = expects[expects["query"].map(lambda query: bool(_PROTECTS.search(query))).astype(bool)]
    return OverRefusal(
        len(expects),
        len(hit),
        {str(k): int(n) for k, n in hit["type"].value_counts().sort_index().items()},
        dict(sorted(Counter(classes_of(hit)[1]).items())),
        [
            {"id": int(i), "type": t, "class": c, "query": q}
            for i, t, c, q in zip(
                hit["id"][:SHOWN], hit["type"], classes_of(hit)[1], hit["query"], strict=False
            )
        ],
    )
