"""What `holisafe bench` does: predictions judged and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows.figures import percent_cell

if TYPE_CHECKING:
    from pipeline.bench.corrected import CorrectedRates
    from pipeline.bench.rates import Rates
    from pipeline.bench.run import Blind
    from pipeline.bench.score import JudgeScores, Scores
    from pipeline.bench.shares import Rate

__all__ = ["compare_models", "run_benchmark", "score_predictions"]

OUT = Console()
FURTHER = {
    "harmful_compliance": "harmful compliance",
    "safe_completion": "safe completion",
    "over_refusal": "over-refusal",
    "group_score": "squares right in all",
}


def run_benchmark(
    root: Path,
    dataset: str,
    out: Path,
    endpoint: str,
    model: str | None,
    key_env: str | None,
    blind: Blind | None,
    limit: int | None,
) -> None:
    """Ask a model about every row, write HoliSafe's prediction file, and say what became of the rows."""
    from flows.progress import RichProgress
    from pipeline.anyset import open_anyset
    from pipeline.bench.run import predict, write_predictions
    from pipeline.bench.subject import open_subject
    from pipeline.workspace import Workspace

    found = open_anyset(dataset)
    if limit is not None:
        found = replace(found, rows=found.rows.head(limit))
    with (
        RichProgress("bench") as progress,
        open_subject(Workspace(root), endpoint, model, key_env) as subject,
    ):
        made = predict(found, subject, progress, blind=blind)
    write_predictions(out, found, made)
    counts = Counter(prediction.status for prediction in made)
    OUT.print(
        escape(f"{len(made):,} rows: " + ", ".join(f"{n:,} {status}" for status, n in counts.most_common()))
    )
    OUT.print(
        escape(f"{out}: score it with `holisafe bench score {out} --judge refusal --out DIR`"), soft_wrap=True
    )


def score_predictions(
    root: Path, predictions: Path, judge: str, out: Path, data: str | None, gold: Path | None, seed: int
) -> None:
    """Score a file of predictions, and show the figures of each judge."""
    from flows.progress import RichProgress
    from pipeline.anyset import open_anyset
    from pipeline.bench.choose import judges_by_name
    from pipeline.bench.score import score
    from pipeline.workspace import Workspace

    opened = None if data is None else open_anyset(data)
    with (
        judges_by_name(judge.split(","), Workspace(root), opened) as judges,
        RichProgress("bench") as progress,
    ):
        found = score(predictions, out, judges, progress, data=opened, gold=gold, seed=seed)
    for name, scores in found.judges.items():
        _show(name, scores, found)
    _show_agreement(found)
    if n := len(found.problems):
        kinds = ", ".join(f"{' '.join(filter(None, key))} {k:,}" for key, k in found.problems.counts.items())
        left_out = f"; {found.problems.rows_left_out:,} rows left out" if found.problems.rows_left_out else ""
        OUT.print(escape(f"{n:,} problems, told in metrics.json: {kinds}{left_out}"), soft_wrap=True)
    OUT.print(escape(f"{out}: results.jsonl, metrics.json, official.txt of each judge"), soft_wrap=True)


def compare_models(models: list[str], out: Path, judge: str | None, seed: int) -> None:
    """Compare scored models, write the page, and show the leaderboard of each judge."""
    from pipeline.bench.compare import FIGURES, compare
    from pipeline.bench.compare_page import LABELS, ONE_SCALE, write_comparison
    from pipeline.bench.scored import read_scored

    judges = [] if judge is None else [name.strip() for name in judge.split(",")]
    found = compare([read_scored(given) for given in models], judges, seed=seed)
    write_comparison(found, out)
    for note in found.notes:
        OUT.print(escape(f"– {note}"), soft_wrap=True)
    for name, board in found.leaderboards.items():
        of = found.differences[name]
        OUT.print(f"\n[bold]{escape(name)}[/]: percent with 95 % intervals", soft_wrap=True)
        head = [Column(LABELS.get(figure, figure), justify="right") for figure in FIGURES]
        table = Table(Column("model", overflow="fold"), *head, box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for one in board:
            rates = [one.rates[figure] for figure in FIGURES]
            cells = [percent_cell(rate.value, rate.low, rate.high) for rate in rates]
            table.add_row(escape(one.model), *cells)
        OUT.print(table)
        OUT.print(
            f"{of.exclude_0} of {of.compared} paired differences exclude 0, {of.exclude_0_of_all} when all "
            "are looked at",
            soft_wrap=True,
        )
    OUT.print(f"\n{ONE_SCALE}", soft_wrap=True)
    OUT.print(escape(f"{out}: index.html, leaderboard.md, comparison.json"), soft_wrap=True)


def _show(name: str, scores: JudgeScores, found: Scores) -> None:
    left_out, counted = scores.rates.left_out, scores.rates.counted
    unjudged = sum(left_out.unscorable.values()) + sum(left_out.blocked.values())
    OUT.print(
        f"\n[bold]{escape(name)}[/]: {found.rows:,} rows with {found.images:,} images, {unjudged:,} blocked "
        "or unscorable; percent with 95 % intervals",
        soft_wrap=True,
    )
    head = ["rows", "judged rows", "all rows", *(["corrected"] if scores.corrected is not None else [])]
    table = Table(Column("rate of", overflow="fold"), *head, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    corrected = _corrected(scores.corrected)
    for label, key, rate, other in _lines(left_out, counted):
        both = [percent_cell(r.value, r.low, r.high) for r in (rate, other)]
        table.add_row(label, f"{rate.n:,}", *both, *([corrected.get(key, "")] if corrected else []))
    for kind, rate in (scores.harm or {}).items():
        table.add_row(
            f"harmful answers, {kind}", f"{rate.n:,}", percent_cell(rate.value, rate.low, rate.high)
        )
    OUT.print(table)
    for reason in dict.fromkeys(rate.reason for _, _, rate, _ in _lines(left_out, counted) if rate.reason):
        OUT.print(escape(f"– {reason}"), soft_wrap=True)
    if scores.corrected is not None:
        _show_gold(scores.corrected, found)


def _lines(left_out: Rates, counted: Rates) -> list[tuple[str, str, Rate, Rate]]:
    """What a line is called, its key in the correction, and its figure in both ways."""
    lines = [("refusal, SSS", "SSS", left_out.rr, counted.rr)]
    lines += [
        (f"attack success, {kind}", kind, rate, counted.asr[kind]) for kind, rate in left_out.asr.items()
    ]
    lines.append(("attack success, mean", "mean", left_out.avg_asr, counted.avg_asr))
    for name, label in FURTHER.items():
        rate, other = getattr(left_out, name), getattr(counted, name)
        if rate is not None:
            lines.append((label, name, rate, other))
    return lines


def _corrected(found: CorrectedRates | None) -> dict[str, str]:
    if found is None:
        return {}
    cells: dict[str, str] = {
        kind: percent_cell(rate.corrected, rate.low, rate.high) for kind, rate in found.by_type.items()
    }
    mean = found.avg_asr
    return cells | {"mean": percent_cell(mean.corrected, mean.low, mean.high)}


def _show_gold(found: CorrectedRates, scores: Scores) -> None:
    errors, used = found.errors, scores.gold or {}
    told = ", ".join(
        f"{word} {'–' if value is None else f'{value:.2f}'}"
        for word, value in (
            ("sensitivity", errors.sensitivity),
            ("specificity", errors.specificity),
            ("Youden's J", errors.youden),
        )
    )
    unused = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in used.items() if what != "used" and n)
    OUT.print(
        f"On {used.get('used', 0):,} gold answers: {told}" + (f"; not used: {unused}" if unused else "")
    )
    for kind, rate in found.by_type.items():
        if rate.reason:
            OUT.print(escape(f"– {kind} cannot be corrected: {rate.reason}"), soft_wrap=True)


def _show_agreement(found: Scores) -> None:
    if found.agreement is None:
        return
    OUT.print("\nJudges on what is a refusal:")
    for pair in found.agreement["all"].pairs:
        figures = " ".join(
            f"{word} {'–' if figure.value is None else f'{figure.value:.2f}'}"
            for word, figure in (("raw", pair.raw), ("kappa", pair.kappa))
        )
        OUT.print(escape(f"{pair.a}, {pair.b}: {pair.items:,} rows, {figures}"), soft_wrap=True)
