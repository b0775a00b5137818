"""Commands for what models answer to a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench"]

bench = typer.Typer(help="What models answer to a benchmark, judged and counted.", no_args_is_help=True)


@bench.callback()
def _group() -> None:
    """Keep `score` a command of its own while it is the only one."""


@bench.command("score")
def bench_score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="One model's: HoliSafe's JSON list, JSON Lines, or LLaVA conversations.",
        ),
    ],
    judge: Annotated[str, typer.Option("--judge", help="Who judges; several with commas between them.")],
    out: Annotated[Path, typer.Option("--out", help="Where results.jsonl, metrics.json, official.txt go.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="The dataset that was asked; default: predictions have its fields."),
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option("--gold", help="CSV with id and value: what people say of these predictions."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the resamples.", min=0)] = 0,
) -> None:
    """Score one model's predictions: attack success and refusal rates as published, each with an interval."""
    from flows.bench_commands import score_predictions

    score_predictions(predictions, judge, out, data, gold, seed)
