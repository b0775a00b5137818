"""Commands for what models answer to a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import HERE, AnyDataset

__all__ = ["bench"]

bench = typer.Typer(help="What models answer to a benchmark, judged and counted.", no_args_is_help=True)


@bench.command("run")
def bench_run(
    dataset: AnyDataset,
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="A name in params.yaml, or a URL such as http://HOST:PORT/v1.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The prediction file to write.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Its name at the endpoint; needed with a URL.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", help="The variable that holds the key of a URL.")
    ] = None,
    blind: Annotated[
        Literal["text", "image"] | None,
        typer.Option("--blind", help="Show the query alone, or the image alone."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first rows.", min=1)] = None,
) -> None:
    """Ask a model about every row, greedily; what was answered is kept, and a rerun asks only the rest."""
    from flows.bench_commands import run_benchmark

    run_benchmark(HERE.resolve(), dataset, out, endpoint, model, key_env, blind, limit)


@bench.command("score")
def bench_score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="One model's: HoliSafe's JSON list, JSON Lines, or LLaVA conversations.",
        ),
    ],
    judge: Annotated[
        str,
        typer.Option(
            "--judge", help="official-string, refusal, llm:ENDPOINT, verdict:ENDPOINT; several with commas."
        ),
    ],
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

    score_predictions(HERE.resolve(), predictions, judge, out, data, gold, seed)


@bench.command("compare")
def bench_compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER...", help="What bench score wrote, one model each; NAME=FOLDER gives it a name."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where index.html, leaderboard.md, comparison.json go.")],
    judge: Annotated[
        str | None, typer.Option("--judge", help="Only this judge; several with commas. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the resamples.", min=0)] = 0,
) -> None:
    """Compare scored models on the same rows: leaderboards, differences, and where judges disagree."""
    from flows.bench_commands import compare_models

    compare_models(models, out, judge, seed)
