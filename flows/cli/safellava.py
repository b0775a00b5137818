"""Commands for a SafeLLaVA: make a small one, train, predict, judge its head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import HERE, AnyDataset

__all__ = ["safellava"]

safellava = typer.Typer(
    help="A model that reads an image's safety off one token (docs/safellava.md).", no_args_is_help=True
)

DATASET = "data/dataset"
Model = Annotated[str, typer.Option("--model", help="A folder that `safellava train` wrote: OUT/model.")]
Trained = Annotated[
    str, typer.Argument(metavar="[DATASET]", help="In HoliSafe's format, or its LLaVA export.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Of everything that is drawn.", min=0)]


@safellava.command("mini")
def mini(
    out: Annotated[Path, typer.Option("--out", help="A folder that is not there yet.")],
    language: Annotated[Literal["smollm2", "qwen2.5"], typer.Option(help="The language model.")] = "smollm2",
    grid: Annotated[int, typer.Option(help="Side of the map of visual tokens.", min=1, max=9)] = 6,
    seed: Annotated[int, typer.Option(help="Of the new weights.", min=0)] = 0,
) -> None:
    """Make SafeLLaVA-mini, untrained, out of weights that `holisafe models pull` fetched."""
    from flows.safellava_commands import make_mini

    make_mini(out, language, grid, seed)


@safellava.command("train")
def train(
    base: Annotated[
        str, typer.Option("--base", help="SafeLLaVA-mini's folder, or any LLaVA of transformers.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where model/, checkpoint.pt, metrics.jsonl go.")],
    dataset: Trained = DATASET,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in YAML.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="One of the file's variants.")] = None,
    ordinary: Annotated[
        Path | None,
        typer.Option("--ordinary", help="Ordinary pairs: LLaVA conversations, JSON or JSON Lines."),
    ] = None,
    ordinary_ratio: Annotated[
        float | None, typer.Option("--ordinary-ratio", help="Of them for each safety row.", min=0)
    ] = None,
    head_only_rows: Annotated[
        bool, typer.Option("--head-only-rows", help="Also rows without a response, for the head alone.")
    ] = False,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the dataset.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="An end before that.", min=1)] = None,
    seed: Seed = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would come to; train nothing.")
    ] = False,
) -> None:
    """Train on a dataset; run the same command again to go on where it was stopped."""
    from flows.safellava_commands import train_model

    changes = {
        "ordinary_ratio": ordinary_ratio,
        "head_only_rows": head_only_rows or None,
        "epochs": epochs,
        "max_steps": max_steps,
        "seed": seed,
    }
    train_model(dataset, base, out, config, variant, ordinary, changes, dry_run=dry_run)


@safellava.command("predict")
def predict(
    dataset: AnyDataset,
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="The prediction file to write.")],
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first rows.", min=1)] = None,
    batch: Annotated[int, typer.Option("--batch", help="Rows at one time.", min=1)] = 4,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="New ones of an answer.", min=1)] = 512,
) -> None:
    """Answer every row, and say what the head says of its image, for `bench score`; run again to go on."""
    from flows.safellava_commands import predict_dataset

    predict_dataset(dataset, model, out, limit, batch, max_tokens)


@safellava.command("folds")
def folds(
    dataset: AnyDataset,
    out: Annotated[Path, typer.Option("--out", help="Where folds.json, folds.md, votes.csv, head.npz go.")],
    groups: Annotated[
        Literal["looks", "dataset"],
        typer.Option(
            "--groups", help="Keep images together that look alike, or also the dataset's leak_group."
        ),
    ] = "dataset",
    seed: Annotated[int, typer.Option("--seed", help="Of folds, first weights and order.", min=0)] = 0,
) -> None:
    """Train the head alone in five folds: figures beside baselines, votes for an audit, a head for builds."""
    from flows.safellava_commands import fold_dataset

    fold_dataset(HERE.resolve(), dataset, out, groups, seed)


@safellava.command("eval")
def eval_(
    model: Annotated[list[str], typer.Option("--model", help="NAME=FOLDER or FOLDER; several to compare.")],
    out: Annotated[Path, typer.Option("--out", help="Where evaluation.json, attention.png go.")],
    dataset: Trained = DATASET,
    seed: Annotated[int | None, typer.Option("--seed", help="Default: that of the training.", min=0)] = None,
    test_share: Annotated[
        float | None, typer.Option("--test-share", help="Default: that of the training.", min=0, max=1)
    ] = None,
    no_zero_shot: Annotated[
        bool, typer.Option("--no-zero-shot", help="Leave the untrained encoder out.")
    ] = False,
    attention: Annotated[
        int, typer.Option("--attention", help="Draw the attention of so many answers.", min=0)
    ] = 1,
) -> None:
    """Judge heads on held-out images, against three baselines, each figure with an interval."""
    from flows.safellava_commands import evaluate_models

    evaluate_models(
        HERE.resolve(), dataset, model, out, seed, test_share, zero_shot=not no_zero_shot, attention=attention
    )
