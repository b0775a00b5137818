"""What the call cache holds: what was asked, why it would be asked again, what it cost, what can go."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.annotators import open_panel
from pipeline.bench.judging import ASKED_AS, JUDGED_AS
from pipeline.runner import is_fresh
from pipeline.stages import STAGES
from pipeline.store import read_rows, sha256_text
from pipeline.workspace import Workspace
from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.engine import BlobStore, CallCache, Record

__all__ = [
    "Cost",
    "Garbage",
    "Miss",
    "category_costs",
    "explain",
    "find_call",
    "garbage",
    "stage_costs",
]

KEYS_AT_ONCE = 5000


def find_call(cache: CallCache, start: str) -> Record:
    """The one call whose key starts with `start`.

    Raises:
        InputError: when there is none, or more than one.
    """
    keys = cache.keys(start)
    if len(keys) != 1:
        raise InputError(f"call {start}: {len(keys)} calls start so; `holisafe calls show` lists calls")
    record = cache.get(keys[0])
    assert record is not None  # noqa: S101 - just listed
    return record


@dataclass(frozen=True)
class Miss:
    """Calls that a stage would make, because the cache does not answer them.

    Attributes:
        stage: who would ask.
        annotator: who would answer.
        why: what differs from the nearest call that is answered.
        calls: how many.
        keys: some of their keys.
    """

    stage: str
    annotator: str
    why: str
    calls: int
    keys: list[str]


def explain(workspace: Workspace, cache: CallCache, stage: str) -> list[Miss]:
    """Why a stage's calls would be sent now; nothing where it is up to date.

    Each call that has no answer is held against an answered call about the same item, or else one with the
    same prompt; what differs between the two is the reason.

    Raises:
        InputError: when the stage asks nothing, or its inputs are not made.
    """
    if stage not in STAGES or not STAGES[stage].questions:
        asking = [s.name for s in STAGES.values() if s.questions]
        raise InputError(f"{stage}: asks no model; there are: {', '.join(asking)}")
    for needed in STAGES[stage].inputs:
        if not is_fresh(workspace, STAGES[needed]):
            raise InputError(
                f"{stage} needs {needed}, which is not up to date; run `holisafe run {needed}` first"
            )
    if is_fresh(workspace, STAGES[stage]):
        return []
    missing: list[tuple[str, dict[str, Any], str]] = []
    with open_panel(workspace, stage, sends=False) as panel:
        for annotator, requests in import_module(f"pipeline.{stage}").requests(workspace, panel):
            distinct = {request.key: request for _, request in requests}
            known = cache.has(list(distinct))
            missing += [
                (annotator.name, json.loads(request.canonical), key)
                for key, request in distinct.items()
                if key not in known
            ]
    near = _nearest(cache, [kept for _, kept, _ in missing])
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, kept, key in missing:
        other = near.get(_item(kept)) or near.get(_prompt(kept))
        grouped[name, _difference(kept, other)].append(key)
    return [Miss(stage, name, why, len(keys), keys[:3]) for (name, why), keys in grouped.items()]


def _item(kept: dict[str, Any]) -> str:
    return "item " + sha256_text(json.dumps(kept["messages"][-1]))


def _prompt(kept: dict[str, Any]) -> str:
    return "prompt " + sha256_text(json.dumps([kept["model"], kept["messages"][:-1]]))


def _nearest(cache: CallCache, wanted: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each wanted item and prompt the last answered call that has it."""
    looked_for = {mark(kept) for kept in wanted for mark in (_item, _prompt)}
    found: dict[str, dict[str, Any]] = {}
    for record in cache.records() if looked_for else ():
        kept = json.loads(record.request_json)
        for mark in (_item(kept), _prompt(kept)):
            if mark in looked_for:
                found[mark] = kept
    return found


def _difference(kept: dict[str, Any], other: dict[str, Any] | None) -> str:
    if other is None:
        return "nothing like it was answered before"
    if _prompt(kept) == _prompt(other) and _item(kept) != _item(other):
        return "a new item: the same prompt was answered for others"
    return "changed: " + ", ".join(_paths(kept, other, ""))


def _paths(one: Any, other: Any, at: str) -> Iterator[str]:
    """Where two values differ, as dotted paths."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from _paths(one.get(name), other.get(name), f"{at}.{name}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _paths(a, b, f"{at}.{i}")
    elif one != other:
        yield at


@dataclass(frozen=True)
class Cost:
    """What calls took and cost under one name."""

    name: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float


def stage_costs(cache: CallCache) -> list[Cost]:
    """By stage and model, over everything that was ever answered."""
    return [
        Cost(f"{u.stage}, {u.model}", u.calls, u.prompt_tokens, u.completion_tokens, u.cost_usd)
        for u in cache.usage()
    ]


def category_costs(workspace: Workspace, cache: CallCache) -> list[Cost]:
    """By category, over the calls that this build's votes rest on; "" holds those of no category."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for category, keys in sorted(_calls_by_category(workspace).items()):
        listed = sorted(keys)
        for start in range(0, len(listed), KEYS_AT_ONCE):
            for record in cache.get_many(listed[start : start + KEYS_AT_ONCE]).values():
                figures = (1, record.prompt_tokens, record.completion_tokens, record.cost_usd)
                sums[category] = [a + b for a, b in zip(sums[category], figures, strict=True)]
    return [Cost(name, int(a), int(b), int(c), usd) for name, (a, b, c, usd) in sums.items()]


def _calls_by_category(workspace: Workspace) -> dict[str, set[str]]:
    category = {info.name: info.category for info in workspace.taxonomy.classes()}
    of_item: dict[str, str] = {}
    if (path := workspace.stage_dir("curate") / "images.parquet").exists():
        for row in read_rows(path, ["image_id", "intended_class"]):
            of_item[row["image_id"]] = category.get(row["intended_class"], "")
    if (path := workspace.stage_dir("synthesize") / "queries.parquet").exists():
        for row in read_rows(path, ["pair_id", "query", "harm_class"]):
            of_item[row["pair_id"]] = category.get(row["harm_class"], "")
            of_item[sha256_text(row["query"])] = category.get(row["harm_class"], "")
    found: dict[str, set[str]] = defaultdict(set)
    for item_id, key in _voted(workspace):
        found[of_item.get(item_id, "")].add(key)
    return found


def _voted(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """Item and call key of each vote, statement and picture that rests on a call."""
    for stage in STAGES.values():
        for table in ("votes", "proofs", "calls"):
            path = workspace.stage_dir(stage.name) / f"{table}.parquet"
            if stage.questions and path.exists():
                for row in read_rows(path, ["item_id", "call_key"]):
                    if row["call_key"]:
                        yield row["item_id"], row["call_key"]


@dataclass(frozen=True)
class Garbage:
    """What no longer serves anything.

    Attributes:
        blobs: images that no call names.
        blob_bytes: their size.
        calls: keys of calls that no vote of this build rests on, those of benchmarks aside.
        calls_usd: what they have cost.
    """

    blobs: list[str]
    blob_bytes: int
    calls: list[str]
    calls_usd: float


def garbage(workspace: Workspace, cache: CallCache, blobs: BlobStore) -> Garbage:
    """Find it; nothing is deleted."""
    from pipeline.engine import ImageRequest

    voted = {key for _, key in _voted(workspace)}
    named: Counter[str] = Counter()
    unused: list[str] = []
    usd = 0.0
    for record in cache.records():
        kept = json.loads(record.request_json)
        if kept.get("path") == ImageRequest.path:
            named[json.loads(record.response_text)["sha256"]] += 1
        for message in kept["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else []
            named.update(part["sha256"] for part in parts if part["type"] == "image")
        # A re-ask has no vote of its own; it stays, as does what a benchmark or its judges were answered.
        if record.key not in voted and record.attempt == 1 and record.stage not in (ASKED_AS, JUDGED_AS):
            unused.append(record.key)
            usd += record.cost_usd
    # A batch under way names images before its calls are answered.
    waiting = any(note.state != "done" for note in cache.batches(None))
    lost = [] if waiting else sorted(sha for sha in blobs.hashes() if sha not in named)
    return Garbage(lost, sum(blobs.size(sha) for sha in lost), unused, usd)
