"""What a build would ask and what it could cost, before anything is spent.

Where a stage's inputs are up to date, its calls are written out in full and looked up in the call cache: the
figures are exact but for calls that a stage may turn out not to need. Else they are those about what the
stage was asked before, as they would be now, with as many as classes whose cells are short need by params
and taxonomy; and they say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.annotators import Asking, Panel, SeesPixels, open_panel
from pipeline.cells import Cell, quotas_of
from pipeline.runner import fresh_stages, has_run, is_fresh, what_changed
from pipeline.stages import STAGES, Stage
from pipeline.store import read_rows
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.engine import CallCache, Request

__all__ = ["PlannedCalls", "PlannedCell", "PlannedStage", "ToSend", "plan", "planned_cells", "planned_stages"]

ITEM_CHARS = 300
"""Taken for the length of an item that is not there yet."""
PAIRS = 13
"""Of a square that are judged by text first: four that need a joint label, and their spare neighbours."""


@dataclass(frozen=True)
class ToSend:
    """Calls that are to be sent.

    Attributes:
        calls: how many.
        tokens: about how many tokens they take, prompt and answer.
        worst_usd: the most that they can cost, each asked once.
    """

    calls: int = 0
    tokens: int = 0
    worst_usd: float = 0.0

    def __add__(self, other: ToSend) -> ToSend:
        """Both together."""
        return ToSend(self.calls + other.calls, self.tokens + other.tokens, self.worst_usd + other.worst_usd)


@dataclass(frozen=True)
class PlannedCalls:
    """The calls of one annotator in one stage.

    Attributes:
        stage: who asks.
        annotator: who answers.
        endpoint: where, as params name it.
        exact: whether what they are about is made; else it is counted from params, at least in part.
        wanted: the most calls that the stage may make.
        answered: those that the cache answers.
        by_class: the others, by the class that they are about. One call may serve several of its cells.
    """

    stage: str
    annotator: str
    endpoint: str
    exact: bool
    wanted: int
    answered: int
    by_class: dict[str, ToSend]

    @property
    def to_send(self) -> ToSend:
        """The calls of all classes."""
        return sum(self.by_class.values(), ToSend())


@dataclass(frozen=True)
class PlannedCell:
    """A cell, as it is and as it is wanted.

    Attributes:
        category: of the class.
        class_name: whose harm its pairs show.
        type: of its pairs.
        split: their side.
        wanted: pairs by the quotas.
        have: pairs that label_pairs accepted, as its table stands.
        to_do: how many more are wanted.
    """

    category: str
    class_name: str
    type: str
    split: str
    wanted: int
    have: int
    to_do: int


@dataclass(frozen=True)
class PlannedStage:
    """A stage that will run, and why.

    Attributes:
        stage: its name.
        changed: what it depends on that is not as it was when it ran last.
    """

    stage: str
    changed: list[str]


def planned_cells(workspace: Workspace) -> list[PlannedCell]:
    """Every cell that is wanted or has pairs, in the order of the classes' ids.

    Where squares are made from templates a class can be tested if the images of its test side allow it; that
    is known when synthesize has run, and its cells stand as it has decided.
    """
    have = _have(workspace)
    found = []
    by_name = {info.name: info for info in workspace.classes()}
    for cell, wanted in _wanted(workspace).items():
        got = have[cell]
        if wanted or got:
            category = by_name[cell.class_name].category
            to_do = max(0, wanted - got)
            found.append(PlannedCell(category, *cell, wanted, got, to_do))
    return found


def _wanted(workspace: Workspace) -> dict[Cell, int]:
    from pipeline.synthesize.stage import planned_squares, wanted_cells

    if is_fresh(workspace, STAGES["synthesize"]):
        return planned_squares(workspace)[0]
    return wanted_cells(workspace)


def _have(workspace: Workspace) -> Counter[Cell]:
    pairs = workspace.stage_dir("label_pairs") / "pairs.parquet"
    if not pairs.exists():
        return Counter()
    columns = ["harm_class", "type", "split"]
    return Counter(Cell(r["harm_class"], r["type"], r["split"]) for r in read_rows(pairs, columns))


def planned_stages(workspace: Workspace) -> list[PlannedStage]:
    """The stages that will run, and what each depends on that has changed."""
    fresh = fresh_stages(workspace)
    changes = ((stage.name, what_changed(workspace, stage, fresh)) for stage in STAGES.values())
    return [PlannedStage(name, changed) for name, changed in changes if changed]


def plan(workspace: Workspace) -> list[PlannedCalls]:
    """The calls of every stage that asks, in the order of the stages; nothing is sent or started."""
    from pipeline.engine import open_cache

    found: list[PlannedCalls] = []
    fresh = fresh_stages(workspace)
    anew = False
    with open_cache(workspace.calls) as cache:
        for stage in STAGES.values():
            if not stage.questions:
                continue
            with open_panel(workspace, stage.name, sends=False) as panel:
                found += _stage_calls(workspace, stage, panel, cache, fresh, anew=anew)
                if stage.name == "synthesize" and stage.name not in fresh:
                    anew = _writes_anew(workspace, panel, cache)
    return found


def _writes_anew(workspace: Workspace, panel: Panel, cache: CallCache) -> bool:
    """Whether queries that were written will be written anew: these are judged and answered anew."""
    stage = STAGES["synthesize"]
    if not all(has_run(workspace, STAGES[name]) for name in [*stage.inputs, stage.name]):
        return False
    written = (workspace.stage_dir(stage.name) / "calls.parquet").exists()
    if written != (workspace.params.synthesize.writer is not None):
        return True
    keys = {
        request.key
        for _, requests in _written_out(workspace, stage, panel, again=True)
        for _, request in requests
    }
    return len(cache.has(list(keys))) < len(keys)


def _stage_calls(
    workspace: Workspace, stage: Stage, panel: Panel, cache: CallCache, fresh: frozenset[str], *, anew: bool
) -> Iterator[PlannedCalls]:
    """The calls of one stage; with `anew` what it was asked before does not count."""
    exact = not anew and fresh.issuperset(stage.inputs)
    standing = exact or (
        not anew and all(has_run(workspace, STAGES[name]) for name in [*stage.inputs, stage.name])
    )
    found: dict[str, PlannedCalls] = {}
    for annotator, requests in _written_out(workspace, stage, panel, again=not exact) if standing else ():
        distinct = {request.key: (name, request) for name, request in reversed(requests)}
        known = cache.has(list(distinct))
        # A stage that is up to date asks nothing, though it did not need every call that it might have.
        missing = {} if stage.name in fresh else {k: v for k, v in distinct.items() if k not in known}
        counted = ((name, request, 1) for name, request in missing.values())
        found[annotator.name] = _counted(stage, annotator, exact, len(known), counted)
    if not exact:
        # A class whose cells are full has its answers in the call cache, or is among those written out.
        short = {cell.class_name for cell in planned_cells(workspace) if cell.to_do}
        classes = short if standing else {info.name for info in workspace.classes()}
        for calls in _estimated(workspace, stage, panel, classes):
            other = found.get(calls.annotator)
            found[calls.annotator] = calls if other is None else _sum(other, calls)
    yield from found.values()


def _written_out(
    workspace: Workspace, stage: Stage, panel: Panel, *, again: bool
) -> Iterator[tuple[Asking, list[tuple[str, Request]]]]:
    """Who asks in a stage, and what, by its tables; `again` leaves out what was never asked."""
    # Of candidates many are never judged, since their cells are full. The others ask about all that is there.
    only = {"again": again} if stage.name in ("synthesize", "label_pairs") else {}
    calls: Iterator[tuple[Asking, list[tuple[str, Request]]]]
    calls = import_module(f"pipeline.{stage.name}").requests(workspace, panel, **only)
    return calls


def _estimated(
    workspace: Workspace, stage: Stage, panel: Panel, classes: Collection[str]
) -> Iterator[PlannedCalls]:
    """About how many calls a stage needs for some classes."""
    if stage.name in ("synthesize", "respond"):
        estimate = import_module(f"pipeline.{stage.name}").estimate
        for asking, example, numbers in estimate(workspace, panel, classes):
            yield _counted(stage, asking, False, 0, ((name, example, n) for name, n in numbers.items()))
        return
    numbers = _estimate(workspace, stage, classes)
    for question in stage.questions:
        for annotator in panel.harm if question == "harm" else panel.models(question):
            image = b"" if isinstance(annotator, SeesPixels) else None
            example = annotator.request("x" * ITEM_CHARS, image)
            yield _counted(stage, annotator, False, 0, ((name, example, n) for name, n in numbers.items()))


def _sum(one: PlannedCalls, other: PlannedCalls) -> PlannedCalls:
    names = dict.fromkeys([*one.by_class, *other.by_class])
    return replace(
        one,
        wanted=one.wanted + other.wanted,
        answered=one.answered + other.answered,
        by_class={n: one.by_class.get(n, ToSend()) + other.by_class.get(n, ToSend()) for n in names},
    )


def _counted(
    stage: Stage,
    annotator: Asking,
    exact: bool,
    answered: int,
    missing: Iterable[tuple[str, Request, int]],
) -> PlannedCalls:
    """The calls of an annotator: `missing` has each that is to be sent with its class and how often."""
    terms = annotator.voter.terms
    by_class: dict[str, ToSend] = {}
    for name, request, times in missing:
        more = ToSend(times, times * request.likely_tokens(terms), times * request.worst_cost(terms))
        by_class[name] = by_class.get(name, ToSend()) + more
    wanted = answered + sum(some.calls for some in by_class.values())
    return PlannedCalls(stage.name, annotator.name, annotator.voter.name, exact, wanted, answered, by_class)


def _estimate(workspace: Workspace, stage: Stage, names: Collection[str]) -> dict[str, int]:
    """The most items of a stage whose inputs are not made, of each of some classes."""
    params = workspace.params
    classes = [info for info in workspace.classes() if info.name in names]
    if stage.name == "label_images":
        sides = [params.collect.per_class] * len(params.collect.sources) + [params.generate.drawings]
        chosen = [*params.generate.pictures, *params.generate.placeholders]
        return {
            info.name: sum(side.safe + side.unsafe for side in sides)
            + sum(
                maker.per_class.safe + maker.per_class.unsafe
                for maker in chosen
                if not maker.classes or info.name in maker.classes
            )
            for info in classes
        }
    written = params.synthesize.writer is not None
    found = {}
    for info in classes:
        quota = quotas_of(info, params.quotas, params.quota_scale)
        pairs = sum(quota.values()) if written else max(quota.values()) * PAIRS
        found[info.name] = round(params.synthesize.surplus * pairs)
    return found
