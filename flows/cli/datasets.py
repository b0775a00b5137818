"""Commands for a dataset that is there: its audit, agreement on it, exports, what differs from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import AnyDataset, Json, NewFolder

__all__ = ["commands", "export"]

commands = typer.Typer()
export = typer.Typer(help="A built dataset in other formats, and on the Hub.", no_args_is_help=True)

Dataset = Annotated[Path, typer.Argument(metavar="DATASET", help="A built dataset, such as data/dataset.")]
Side = Annotated[Literal["train", "test", "all"], typer.Option("--split", help="The side that goes out.")]
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - its name, no token


@commands.command()
def audit(
    dataset: AnyDataset,
    out: Annotated[Path, typer.Option("--out", help="Where index.html and metrics.json go.")],
    votes: Annotated[
        Path | None, typer.Option("--votes", help="A file of votes on it, as for `holisafe agreement`.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another dataset, whose copies are looked for.")
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Also plant flaws in copies of it, and say what is found.")
    ] = False,
    embed: Annotated[
        bool,
        typer.Option(
            "--embed",
            help="Guess labels of images from embeddings, not pixels: `holisafe models pull` first.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of folds and resamples.")] = 0,
) -> None:
    """Audit any dataset with HoliSafe's eight fields: what leaks, repeats, is missing, is to be judged."""
    from flows.dataset_commands import audit_dataset

    audit_dataset(dataset, out, votes, against, seed, self_test=self_test, embed=embed)


@commands.command()
def agreement(
    votes: Annotated[
        Path,
        typer.Argument(
            metavar="VOTES", help="CSV with item_id, annotator and value, or our own votes.parquet."
        ),
    ],
    json: Json,
    order: Annotated[
        str, typer.Option("--order", help="Values of an ordinal scale, lowest first: low,middle,high.")
    ] = "",
    rounds: Annotated[int, typer.Option("--rounds", help="Resamples behind an interval.", min=0)] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the resamples.", min=0)] = 0,
) -> None:
    """Say how far annotators agree: raw, kappas, alpha, AC1 and AC2, prevalence, each with an interval."""
    from flows.audit_commands import show_agreement

    show_agreement(votes, json, order, rounds, seed)


@export.command("holisafe-bench")
def export_holisafe_bench(
    dataset: Dataset,
    out: NewFolder,
    split: Side = "test",
    with_unverified: Annotated[
        bool, typer.Option("--with-unverified", help="Also SSU rows whose harm is not proven.")
    ] = False,
) -> None:
    """Write HoliSafe's own format: what its eight fields can say; the rest is left out and counted."""
    from flows.dataset_commands import export_as_bench

    export_as_bench(dataset, out, split, with_unverified=with_unverified)


@export.command("llava")
def export_llava(
    dataset: Dataset,
    out: NewFolder,
    split: Side = "train",
    rationale: Annotated[
        bool, typer.Option("--rationale", help="Also the structured rationale, as a field of its own.")
    ] = False,
) -> None:
    """Write LLaVA conversations for training."""
    from flows.dataset_commands import export_as_llava

    export_as_llava(dataset, out, split, rationale=rationale)


@export.command("hub")
def export_hub(
    dataset: Dataset,
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Show it to everybody; it stays gated.")] = False,
    token_env: Annotated[str, typer.Option(help="The variable that holds the token.")] = TOKEN_VARIABLE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    proof: Annotated[
        Path | None,
        typer.Option("--proof", help="What `holisafe prove` wrote of this dataset, for the card."),
    ] = None,
) -> None:
    """Upload to the Hugging Face Hub, gated and private, only images that may be given away."""
    from flows.dataset_commands import export_to_hub

    export_to_hub(dataset, repo, token_env, proof, public=public, dry_run=dry_run)


@commands.command()
def prove(
    dataset: AnyDataset,
    out: Annotated[Path, typer.Option("--out", help="Where proof.json and proof.md go.")],
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="Test on it, too: DATASET or NAME=DATASET."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Train on it, too: DATASET or NAME=DATASET."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How many guards of each kind.", min=1)] = 3,
) -> None:
    """Does it teach? Train small guards on it, on parts of it and on others; test all on the same rows."""
    from flows.dataset_commands import prove_dataset

    prove_dataset(dataset, on or [], against or [], out, range(seeds))


@commands.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A built dataset.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    json: Annotated[
        Path | None, typer.Option("--json", help="Where to write every row that differs.")
    ] = None,
) -> None:
    """Say what differs between two datasets: rows, labels and responses, by class, type and side."""
    from flows.dataset_commands import show_diff

    show_diff(a, b, json)
