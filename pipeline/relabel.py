"""Another wording of the policy: what it decides is asked again, and compared with the labels of the build.

Only clauses that differ are asked about, and only items that they decide: images that were collected for the
class, texts and pairs that were judged for it. Answers go through the call cache, so a build that takes the
policy over asks none of them again. No table is changed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.annotators import (
    AXES,
    LanguageModel,
    Question,
    Vote,
    aggregate,
    clauses,
    open_panel,
    vote_all,
)
from pipeline.label_images.stage import image_items
from pipeline.label_pairs.stage import pair_items, text_item
from pipeline.runner import is_fresh
from pipeline.stages import STAGES
from pipeline.store import read_rows
from pipeline.workspace import Progress, Workspace
from schemas.errors import InputError
from schemas.taxonomy import Taxonomy, load_taxonomy

__all__ = ["Changed", "Flips", "PlannedAsk", "Policy", "changed_clauses", "open_policy", "planned", "relabel"]

STAGE_OF: dict[Question, str] = {
    "image_safe": "label_images",
    "text_safe": "label_pairs",
    "pair_safe": "label_pairs",
}


@dataclass(frozen=True)
class Policy(Workspace):
    """The workspace as it would be with another taxonomy file."""

    file: Path

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The other taxonomy."""
        return load_taxonomy(self.file)


@dataclass(frozen=True, slots=True)
class Changed:
    """A clause that differs: what one class says of one kind of item."""

    question: Question
    name: str


@dataclass(frozen=True, slots=True)
class PlannedAsk:
    """The calls about the items of one clause.

    Attributes:
        question: the question that the clause decides.
        name: the class.
        annotator: who would be asked.
        items: how many items the clause decides.
        calls: how many calls the cache does not answer.
        worst_usd: the most that these can cost, each asked once.
    """

    question: Question
    name: str
    annotator: str
    items: int
    calls: int
    worst_usd: float


@dataclass(frozen=True, slots=True)
class Flips:
    """What another wording of one clause does to labels.

    Attributes:
        question: the question that the clause decides.
        name: the class.
        items: how many items were asked about.
        to_unsafe: how many are unsafe now and were safe.
        to_safe: how many are safe now and were unsafe.
        unscorable: how many nobody can score now.
        changed: the label before and after, by item, where they differ; None for no label.
    """

    question: Question
    name: str
    items: int
    to_unsafe: int
    to_safe: int
    unscorable: int
    changed: Mapping[str, tuple[str | None, str | None]]


def open_policy(workspace: Workspace, file: Path) -> Policy:
    """The workspace with the policy of another taxonomy file.

    Raises:
        InputError: when the file is wrong, has other classes, or when clauses do not reach the annotators.
    """
    if workspace.params.annotators.policy != "clauses":
        raise InputError(
            f"{workspace.root / 'params.yaml'}: annotators.policy: {workspace.params.annotators.policy}, so "
            "annotators are told the short policy of their prompts and no clause of the taxonomy; write "
            "`policy: clauses` there and run `holisafe build` before another wording can be tried"
        )
    policy = Policy(workspace.root, file)
    theirs = {info.class_key: info.id for info in policy.taxonomy.classes()}
    ours = {info.class_key: info.id for info in workspace.taxonomy.classes()}
    if differ := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
        raise InputError(
            f"{file}: categories: other classes or ids than {workspace.params.taxonomy} "
            f"({', '.join(differ)}); give a copy of it in which only policies are worded otherwise"
        )
    return policy


def changed_clauses(workspace: Workspace, policy: Policy) -> list[Changed]:
    """The clauses that differ, of the classes that the build covers."""
    found = []
    for question in AXES:
        ours, theirs = clauses(workspace.taxonomy, question), clauses(policy.taxonomy, question)
        names = [info.name for info in workspace.classes()]
        found += [Changed(question, name) for name in names if ours[name] != theirs[name]]
    return found


def differs_elsewhere(workspace: Workspace, policy: Policy) -> bool:
    """Whether the file differs in anything but clauses and versions."""
    return _rest(workspace.taxonomy) != _rest(policy.taxonomy)


def _rest(taxonomy: Taxonomy) -> dict[str, Any]:
    told = taxonomy.model_dump(exclude={"version", "policy_version"})
    for category in told["categories"].values():
        for spec in category["classes"].values():
            for field in (*AXES.values(), "protective", "trigger"):
                del spec["policy"][field]
    return told


def planned(workspace: Workspace, policy: Policy) -> list[PlannedAsk]:
    """The calls that `relabel` would make; nothing is sent.

    Raises:
        InputError: when what the changed clauses decide has not been labelled.
    """
    from pipeline.engine import open_cache

    found = []
    with open_cache(workspace.calls) as cache:
        for stage, changed in _by_stage(workspace, policy).items():
            with open_panel(policy, stage, sends=False) as panel:
                for question, names in changed.items():
                    models = panel.models(question)
                    for name, items in _items(workspace, question, names, models).items():
                        for model in models:
                            calls = {c.key: c for c in model.requests(items) if c is not None}
                            known = cache.has(list(calls))
                            missing = [call for key, call in calls.items() if key not in known]
                            worst = sum(call.worst_cost(model.voter.terms) for call in missing)
                            found.append(
                                PlannedAsk(question, name, model.name, len(items), len(missing), worst)
                            )
    return found


def relabel(workspace: Workspace, policy: Policy, progress: Progress) -> list[Flips]:
    """Ask again what the changed clauses decide, and compare; the caller holds the workspace.

    Labels before and after are both estimated from the votes on all items of the clause at once, so that
    nothing but the answers differs between them.

    Raises:
        InputError: when what the changed clauses decide has not been labelled.
    """
    found = []
    for stage, changed in _by_stage(workspace, policy).items():
        path = workspace.stage_dir(stage) / "votes.parquet"
        with open_panel(policy, stage) as panel:
            for question, names in changed.items():
                models = panel.models(question)
                by_class = _items(workspace, question, names, models)
                asked = [item for items in by_class.values() for item in items]
                new = vote_all(models, asked, progress) if asked else []
                replaced = {model.name for model in models}
                decided = {item.id for item in asked}
                old = [v for v in _votes(path, question) if v.item_id in decided]
                kept = [v for v in old if v.annotator not in replaced]
                threshold = getattr(workspace.params.thresholds, question)
                for name, items in by_class.items():
                    ids = [item.id for item in items]
                    before = _labels(old, ids, threshold)
                    after = _labels([*new, *kept], ids, threshold)
                    found.append(_flips(question, name, ids, before, after))
    return found


def _by_stage(workspace: Workspace, policy: Policy) -> dict[str, dict[Question, list[str]]]:
    """The changed clauses by the stage that asks, each of which must be up to date."""
    found: dict[str, dict[Question, list[str]]] = {}
    for changed in changed_clauses(workspace, policy):
        stage = found.setdefault(STAGE_OF[changed.question], {})
        stage.setdefault(changed.question, []).append(changed.name)
    for stage_name in found:
        if not is_fresh(workspace, STAGES[stage_name]):
            raise InputError(
                f"{workspace.root}: {stage_name} is not up to date, so there are no labels of the present "
                "policy to compare with; run `holisafe build` first"
            )
    return found


def _items(
    workspace: Workspace, question: Question, names: Sequence[str], models: Sequence[LanguageModel[Any]]
) -> dict[str, list[Any]]:
    """What the clauses of some classes decide: the items that were judged, by class."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for item in _judged(workspace, question, frozenset(names), models):
        found[item.policy_class].append(item)
    return found


def _judged(
    workspace: Workspace, question: Question, names: frozenset[str], models: Sequence[LanguageModel[Any]]
) -> list[Any]:
    if question == "image_safe":
        return [item for item in image_items(workspace) if item.policy_class in names]
    voted = {v.item_id for v in _votes(workspace.stage_dir("label_pairs") / "votes.parquet", question)}
    rows = _candidates(workspace)
    if question == "pair_safe":
        judged = [r for r in rows if r["harm_class"] in names and r["pair_id"] in voted]
        return list(pair_items(workspace, models, judged))
    texts: dict[str, Any] = {}
    for row in rows:
        item = text_item(row)
        texts.setdefault(item.id, item)
    return [item for item in texts.values() if item.policy_class in names and item.id in voted]


def _candidates(workspace: Workspace) -> list[dict[str, Any]]:
    """Everything that was drafted, in its order, and what was kept."""
    columns = ["pair_id", "image_id", "query", "harm_class"]
    tables = [("synthesize", "queries.parquet"), ("label_pairs", "pairs.parquet")]
    rows = (r for stage, name in tables for r in read_rows(workspace.stage_dir(stage) / name, columns))
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["pair_id"], row)
    return list(found.values())


def _votes(path: Path, question: Question) -> list[Vote]:
    return [Vote(**row) for row in read_rows(path) if row["question"] == question]


def _labels(votes: Iterable[Vote], ids: Sequence[str], threshold: float) -> dict[str, str | None]:
    by_item: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_item[vote.item_id].append(vote)
    labels = aggregate((vote for item_id in ids for vote in by_item[item_id]), threshold)
    return {item_id: labels[item_id].value if item_id in labels else None for item_id in ids}


def _flips(
    question: Question,
    name: str,
    ids: Sequence[str],
    before: Mapping[str, str | None],
    after: Mapping[str, str | None],
) -> Flips:
    changed = {i: (before[i], after[i]) for i in ids if before[i] != after[i]}
    return Flips(
        question,
        name,
        len(ids),
        sum(pair == ("safe", "unsafe") for pair in changed.values()),
        sum(pair == ("unsafe", "safe") for pair in changed.values()),
        sum(after[i] is None for i in ids),
        changed,
    )
