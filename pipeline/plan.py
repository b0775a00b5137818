"""What a build would ask and what it could cost, before anything is spent.

Where a stage's inputs are made, its calls are written out in full and looked up in the call cache: the
figures are exact but for calls that a stage may turn out not to need. Before that they are counted from
params and taxonomy, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.annotators import Asking, Panel, SeesPixels, open_panel
from pipeline.runner import is_fresh
from pipeline.stages import STAGES, Stage
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.engine import CallCache, Request

__all__ = ["PlannedCalls", "plan"]

ITEM_CHARS = 300
"""Taken for the length of an item that is not there yet."""
PAIRS = 13
"""Of a square that are judged by text first: four that need a joint label, and their spare neighbours."""


@dataclass(frozen=True)
class PlannedCalls:
    """The calls of one annotator in one stage.

    Attributes:
        stage: who asks.
        annotator: who answers.
        endpoint: where, as params name it.
        exact: whether the calls were written out; else they are counted from params.
        wanted: the most calls that the stage may make.
        answered: those that the cache answers.
        tokens: about how many the others take, prompt and answer.
        worst_usd: the most that the others can cost, each asked once.
    """

    stage: str
    annotator: str
    endpoint: str
    exact: bool
    wanted: int
    answered: int
    tokens: int
    worst_usd: float


def plan(workspace: Workspace) -> list[PlannedCalls]:
    """The calls of every stage that asks, in the order of the stages; nothing is sent or started."""
    from pipeline.engine import open_cache

    found = []
    with open_cache(workspace.calls) as cache:
        for stage in STAGES.values():
            if not stage.questions:
                continue
            with open_panel(workspace, stage.name, sends=False) as panel:
                found += list(_stage_calls(workspace, stage, panel, cache))
    return found


def _stage_calls(
    workspace: Workspace, stage: Stage, panel: Panel, cache: CallCache
) -> Iterator[PlannedCalls]:
    if all(is_fresh(workspace, STAGES[name]) for name in stage.inputs):
        calls: Iterator[tuple[Asking, list[Request]]]
        calls = import_module(f"pipeline.{stage.name}").requests(workspace, panel)
        for annotator, requests in calls:
            distinct = {request.key: request for request in requests}
            known = cache.has(list(distinct))
            # A stage that is up to date asks nothing, though it did not need every call that it might have.
            up_to_date = is_fresh(workspace, stage)
            missing = [] if up_to_date else [r for key, r in distinct.items() if key not in known]
            yield _counted(stage, annotator, True, len(known) + len(missing), len(known), missing, 1)
        return
    if stage.name == "respond":
        from pipeline.respond import estimate

        for asking, example, number in estimate(workspace, panel, ITEM_CHARS):
            yield _counted(stage, asking, False, number, 0, [example], number)
        return
    for question in stage.questions:
        for annotator in panel.models(question):
            number = _estimate(workspace, stage)
            image = b"" if isinstance(annotator, SeesPixels) else None
            example = annotator.request("x" * ITEM_CHARS, image)
            yield _counted(stage, annotator, False, number, 0, [example], number)


def _counted(
    stage: Stage,
    annotator: Asking,
    exact: bool,
    wanted: int,
    answered: int,
    missing: Sequence[Request],
    times: int,
) -> PlannedCalls:
    terms = annotator.voter.terms
    return PlannedCalls(
        stage.name,
        annotator.name,
        annotator.voter.name,
        exact,
        wanted,
        answered,
        times * sum(request.likely_tokens(terms) for request in missing),
        times * sum(request.worst_cost(terms) for request in missing),
    )


def _estimate(workspace: Workspace, stage: Stage) -> int:
    """The most items of a stage whose inputs are not made."""
    params, classes = workspace.params, workspace.classes()
    if stage.name == "label_images":
        made = [maker.per_class for maker in params.generate.pictures]
        collected = [params.collect.per_class] * len(params.collect.sources)
        sides = [*collected, params.generate.drawings, *made]
        return len(classes) * sum(side.safe + side.unsafe for side in sides)
    squares = sum(max(info.spec.quotas.values()) for info in classes) * params.quota_scale
    return round(squares * params.synthesize.surplus * PAIRS)
