"""What the commands around model calls do: `plan`, `calls` and `endpoint`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from flows.commands import open_workspace
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.calls import Cost
    from pipeline.plan import PlannedCalls, PlannedCell, PlannedStage

__all__ = ["explain_calls", "run_script", "show_call_costs", "show_calls", "show_plan", "sweep_calls"]

OUT = Console()
TEXT_CHARS = 60


def show_plan(root: Path, target: Path | None) -> None:
    """Print cells, what will run and why, and the calls of each stage that asks; nothing is sent."""
    from pipeline.plan import plan, planned_cells, planned_stages
    from pipeline.store import write_json

    workspace = open_workspace(root)
    cells, stages, calls = planned_cells(workspace), planned_stages(workspace), plan(workspace)
    if target is not None:
        asked = [asdict(row) | {"to_send": asdict(row.to_send)} for row in calls]
        kinds = (("cell", map(asdict, cells)), ("stage", map(asdict, stages)), ("calls", asked))
        write_json(target, [{"kind": kind, **row} for kind, rows in kinds for row in rows])
    _show_cells(cells, calls)
    _show_stages(stages)
    _show_calls(calls)
    if any(not row.exact for row in calls):
        OUT.print("~ counted from params, at least in part, since what comes before is not up to date.")
    cap = workspace.params.budget.total
    OUT.print("No budget is set." if cap is None else f"The budget is {cap:,.2f} USD over all runs.")


def _show_cells(cells: Sequence[PlannedCell], calls: Sequence[PlannedCalls]) -> None:
    """A line for each class: pairs that are there of those wanted, train and test, and what it will ask."""
    from pipeline.plan import ToSend
    from schemas.taxonomy import PAIR_TYPES

    names = [*PAIR_TYPES, "to do", "calls", "tokens", "USD"]
    counts_of = (Column(name, justify="right", no_wrap=True) for name in names)
    table = Table(
        Column("class", overflow="fold"), *counts_of, box=None, padding=(0, 1, 0, 0), pad_edge=False
    )
    by_class: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        by_class.setdefault(cell.class_name, []).append(cell)
    for name, some in [*by_class.items(), ("all", list(cells))]:
        if name == "all":
            table.add_section()
        counts = []
        for kind in PAIR_TYPES:
            mine = [cell for cell in some if cell.type == kind]
            counts.append(f"{sum(cell.have for cell in mine):,}/{sum(cell.wanted for cell in mine):,}")
        asked = (row.to_send if name == "all" else row.by_class.get(name, ToSend()) for row in calls)
        sent = sum(asked, ToSend())
        to_do = sum(cell.to_do for cell in some)
        table.add_row(
            name, *counts, f"{to_do:,}", _short(sent.calls), _short(sent.tokens), f"{sent.worst_usd:,.2f}"
        )
    OUT.print(table)
    OUT.print("Pairs there of those wanted; calls to send, their tokens, and the most that they cost.\n")


def _short(n: int) -> str:
    """A number in few characters: 950, 12k, 3.4M."""
    if n < 10_000:
        return f"{n:,}"
    return f"{n / 1000:,.0f}k" if n < 1_000_000 else f"{n / 1_000_000:,.1f}M"


def _show_stages(stages: Sequence[PlannedStage]) -> None:
    if not stages:
        OUT.print("Every stage is up to date.\n")
        return
    table = Table("will run", Column("since this changed", overflow="fold"), box=None)
    for row in stages:
        table.add_row(row.stage, "; ".join(row.changed))
    OUT.print(table)
    OUT.print()


def _show_calls(calls: Sequence[PlannedCalls]) -> None:
    table = Table(
        "stage",
        Column("annotator", overflow="fold"),
        "wanted",
        "answered",
        "to send",
        "tokens",
        "worst USD",
        box=None,
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for row in calls:
        about = "" if row.exact else "~"
        table.add_row(
            row.stage,
            row.annotator,
            f"{about}{row.wanted:,}",
            f"{row.answered:,}",
            f"{about}{row.wanted - row.answered:,}",
            f"~{row.to_send.tokens:,}",
            f"{row.to_send.worst_usd:,.4f}",
        )
    table.add_section()
    to_send = sum(row.wanted - row.answered for row in calls)
    total = sum(row.to_send.worst_usd for row in calls)
    tokens = f"~{sum(row.to_send.tokens for row in calls):,}"
    table.add_row("all", "", "", "", f"{to_send:,}", tokens, f"{total:,.4f}")
    OUT.print(table)


def show_calls(root: Path, key: str | None, stage: str | None, limit: int) -> None:
    """Print one call in full, or the last ones."""
    from pipeline.calls import find_call
    from pipeline.engine import open_cache

    with open_cache(open_workspace(root).calls) as cache:
        if key is not None:
            kept = asdict(find_call(cache, key))
            kept["request_json"] = json.loads(kept["request_json"])
            kept["logprobs"] = json.loads(kept["logprobs"]) if kept["logprobs"] else None
            OUT.print_json(json.dumps(kept, ensure_ascii=False))
            return
        table = Table("key", "stage", "model", "finish", "tokens", "USD", "answer", box=None)
        for record in cache.newest(stage, limit):
            table.add_row(
                record.key[:12],
                record.stage,
                record.model,
                record.finish_reason,
                f"{record.prompt_tokens}+{record.completion_tokens}",
                f"{record.cost_usd:.6f}",
                " ".join(record.response_text.split())[:TEXT_CHARS],
            )
        OUT.print(table)
        OUT.print(f"{cache.count():,} calls are answered.")


def explain_calls(root: Path, stage: str) -> None:
    """Print why calls of a stage would be sent now."""
    from pipeline.calls import explain
    from pipeline.engine import open_cache

    workspace = open_workspace(root)
    with open_cache(workspace.calls) as cache:
        misses = explain(workspace, cache, stage)
    if not misses:
        OUT.print(f"{stage}: nothing to ask, every call that it needs is answered.")
        return
    table = Table("annotator", "calls", "why", "for instance", box=None)
    for miss in misses:
        table.add_row(miss.annotator, f"{miss.calls:,}", miss.why, " ".join(key[:12] for key in miss.keys))
    OUT.print(table)


def show_call_costs(root: Path, target: Path | None) -> None:
    """Print what calls took and cost: by stage, by category, and for each row of the dataset."""
    from pipeline.calls import category_costs, stage_costs
    from pipeline.engine import open_cache
    from pipeline.store import write_json

    workspace = open_workspace(root)
    with open_cache(workspace.calls) as cache:
        stages, categories = stage_costs(cache), category_costs(workspace, cache)
    metrics = workspace.stage_dir("audit") / "metrics.json"
    rows = json.loads(metrics.read_text())["rows"] if metrics.exists() else 0
    spent = sum(cost.usd for cost in categories)
    each = spent / rows if rows else None
    if target is not None:
        result = {
            "by_stage": [asdict(cost) for cost in stages],
            "by_category": [asdict(cost) for cost in categories],
            "rows": rows,
            "usd_per_row": each,
        }
        write_json(target, result)
    OUT.print(_cost_table("stage and model, all runs", stages))
    OUT.print(_cost_table("category, this build", categories))
    if each is not None:
        OUT.print(f"{rows:,} rows in the dataset: {each:.6f} USD each.")


def _cost_table(title: str, costs: list[Cost]) -> Table:
    table = Table(title, "calls", "prompt tokens", "answer tokens", "USD", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for cost in costs:
        figures = (cost.calls, cost.prompt_tokens, cost.completion_tokens)
        table.add_row(cost.name or "(none)", *(f"{n:,}" for n in figures), f"{cost.usd:,.4f}")
    return table


def sweep_calls(root: Path, *, unused: bool, yes: bool) -> None:
    """Print what no longer serves anything, and delete it where `yes` says so."""
    from pipeline.calls import garbage
    from pipeline.engine import BlobStore, open_cache
    from pipeline.runner import is_fresh, locked
    from pipeline.stages import STAGES

    workspace = open_workspace(root)
    blobs = BlobStore(workspace.blobs)
    if unused and isinstance(workspace.calls, str):
        raise InputError("--unused: others share this call cache, and this build cannot tell what they use")
    if workspace.shares_blobs and not isinstance(workspace.calls, str):
        raise InputError(
            f"{workspace.blobs}: others share these images, and this call cache does not hold their calls"
        )
    if unused and not all(is_fresh(workspace, stage) for stage in STAGES.values() if stage.questions):
        raise InputError("--unused: this build is not finished, and what it needs would go; build first")
    with locked(workspace), open_cache(workspace.calls) as cache:
        found = garbage(workspace, cache, blobs)
        OUT.print(f"{len(found.blobs):,} images that no call names ({found.blob_bytes / 1e6:.1f} MB).")
        OUT.print(
            f"{len(found.calls):,} calls that no vote of this build rests on ({found.calls_usd:.4f} USD); "
            + (
                "they go too; what they cost stays in the books."
                if unused
                else "kept, since they may serve again; --unused takes them too."
            )
        )
        if not yes:
            OUT.print("Nothing is deleted; --yes does it.")
            return
        for sha in found.blobs:
            blobs.delete(sha)
        if unused:
            cache.delete(found.calls)
    OUT.print("Deleted.")


def run_script(file: Path, port: int) -> None:
    """Serve a script until interrupted."""
    from pipeline.engine.scripted import backend_id, load_script, serve

    if not file.is_file():
        raise InputError(f"{file}: no such file")
    script = load_script(file)

    def ready(base_url: str) -> None:
        sys.stdout.write(json.dumps({"base_url": base_url, "backend_id": backend_id(script)}) + "\n")
        sys.stdout.flush()

    serve(script, port, ready)
