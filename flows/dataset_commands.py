"""The commands on built datasets: exports and differences."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Column, Table

from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.built import Side
    from pipeline.export import Exported, HubPlan

__all__ = [
    "audit_dataset",
    "export_as_bench",
    "export_as_llava",
    "export_to_hub",
    "prove_dataset",
    "show_diff",
]

OUT = Console()


def audit_dataset(
    place: str,
    out: Path,
    votes: Path | None,
    against: str | None,
    seed: int,
    *,
    self_test: bool,
    embed: bool,
) -> None:
    """Audit any dataset, and say what to look at first."""
    from flows.progress import RichProgress
    from pipeline.audit import audit_anyset
    from pipeline.audit.headlines import headlines
    from pipeline.extras import needs

    if embed:  # told before all images are looked at
        needs("open_clip", "torch", "transformers")
    with RichProgress("audit") as progress:
        metrics = audit_anyset(
            place,
            out,
            progress,
            votes=votes,
            against=against,
            test_itself=self_test,
            embed=embed,
            seed=seed,
        )
    styles = {"wrong": "bold red", "look": "yellow", "fine": "green"}
    table = Table(Column(), Column(overflow="fold"), box=None, show_header=False)
    for line in headlines(metrics):
        table.add_row(f"[{styles[line.level]}]{line.word}[/]", escape(line.text))
    OUT.print(table)
    OUT.print(f"\n{escape(str(out / 'index.html'))}: open it in a browser; figures in metrics.json")


def export_as_bench(dataset: Path, out: Path, split: Side, *, with_unverified: bool) -> None:
    """Write HoliSafe's format, and say what it leaves out."""
    from flows.progress import RichProgress
    from pipeline.export import export_bench

    with RichProgress("export") as progress:
        done = export_bench(dataset, out, split=split, with_unverified=with_unverified, progress=progress)
    _say(done, out)


def export_as_llava(dataset: Path, out: Path, split: Side, *, rationale: bool) -> None:
    """Write LLaVA's conversations, and say what they leave out."""
    from flows.progress import RichProgress
    from pipeline.export import export_llava

    with RichProgress("export") as progress:
        done = export_llava(dataset, out, split=split, rationale=rationale, progress=progress)
    _say(done, out)


def export_to_hub(
    dataset: Path, repo: str, token_env: str, proof: Path | None, *, public: bool, dry_run: bool
) -> None:
    """Upload a dataset, or say what an upload would do."""
    from flows.progress import RichProgress
    from pipeline.export import plan_upload, upload

    token = os.environ.get(token_env, "")
    if not dry_run and not token:
        raise InputError(f"--token-env: {token_env} is not set; set it to a token that may write to {repo}")
    with RichProgress("check") as progress:
        plan = plan_upload(dataset, repo, public=public, progress=progress, proof=proof)
    _say_plan(plan)
    if dry_run:
        OUT.print("Nothing was sent: --dry-run.")
        return
    OUT.print(f"Uploaded: {upload(dataset, plan, token)}", soft_wrap=True)


def prove_dataset(
    place: str, on: Sequence[str], against: Sequence[str], out: Path, seeds: Sequence[int]
) -> None:
    """Train guards on a dataset and on others, test them, and print the tables."""
    from flows.progress import RichProgress
    from pipeline.anyset import open_anyset
    from pipeline.prove import arms_of, encode, markdown, prove, write_proof

    named = dict(map(_named, (place, *against, *on)))
    if len(named) < 1 + len(against) + len(on):
        raise InputError("two datasets have one name; give each its own as NAME=DATASET")
    with RichProgress("prove") as progress:
        encoded = [encode(name, open_anyset(where), progress) for name, where in named.items()]
        ours, others, tested = encoded[0], encoded[1 : 1 + len(against)], encoded[1 + len(against) :]
        proof = prove(arms_of(ours, others), [ours, *tested], progress, seeds=seeds)
    write_proof(proof, out)
    OUT.print(Markdown(markdown(proof)))
    OUT.print(f"\n{escape(str(out / 'proof.md'))}, proof.json")


def _named(given: str) -> tuple[str, str]:
    """`NAME=DATASET`, or a dataset that is called as its folder or file is."""
    name, equals, place = given.partition("=")
    if equals and not Path(given).exists():
        return name, place
    return Path(given).resolve().name, given


def show_diff(a: Path, b: Path, target: Path | None) -> None:
    """Print the cells that differ."""
    from flows.progress import RichProgress
    from pipeline.diff import diff_datasets

    with RichProgress("diff") as progress:
        diff = diff_datasets(a, b, target, progress)
    names = ("a", "b", "added", "gone", "relabelled", "responses")
    table = Table(
        Column("class", overflow="fold"),
        "type",
        "split",
        *names,
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in table.columns[3:]:
        column.justify = "right"
    changed = [cell for cell in diff.cells if cell.changed]
    for cell in changed:
        figures = [f"{getattr(cell, name):,}" for name in names]
        table.add_row(cell.class_key.rsplit("/", 1)[-1], cell.type, cell.split, *figures)
    table.add_section()
    table.add_row("all", "", "", *(f"{getattr(diff.total, name):,}" for name in names))
    OUT.print(table)
    if changed:
        OUT.print(f"{len(changed):,} of {len(diff.cells):,} cells differ.")
    else:
        OUT.print("Nothing differs: the same rows, labels and responses.")


def _say(done: Exported, out: Path) -> None:
    OUT.print(
        f"{done.kept.total():,} of {done.rows:,} rows ({done.split}) with {done.images:,} images: {out}"
    )
    for reason, count in done.left_out.items():
        OUT.print(f"  {count:,} left out: {reason}")


def _say_plan(plan: HubPlan) -> None:
    folders = Table("folder", "files", "bytes", box=None)
    for column in folders.columns[1:]:
        column.justify = "right"
    sizes: dict[str, list[int]] = {}
    for name, size in plan.files.items():
        sizes.setdefault(name.split("/", 1)[0] + ("/" if "/" in name else ""), []).append(size)
    for folder, listed in sorted(sizes.items()):
        folders.add_row(folder, f"{len(listed):,}", f"{sum(listed):,}")
    folders.add_section()
    folders.add_row("all", f"{len(plan.files):,}", f"{sum(plan.files.values()):,}")
    OUT.print(folders)
    seen = "private" if plan.private else "public"
    OUT.print(
        f"{plan.repo}: {seen}, gated (each request for access is answered by hand); {plan.rows:,} rows, "
        f"{plan.left_out:,} of them without their image, which may not be given away.",
        soft_wrap=True,
    )
