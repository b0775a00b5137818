"""Commands for people who judge rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import HERE, AnyDataset, NewFolder

__all__ = ["commands", "review_votes"]

commands = typer.Typer()
review_votes = typer.Typer(help="The votes of those who reviewed.", no_args_is_help=True)

Store = Annotated[Path | None, typer.Option(help="Where votes are kept; default: .holisafe/reviews.sqlite.")]
VotesTo = Annotated[Path | None, typer.Option(help="A .jsonl or .csv; default: see docs/review.md.")]
Audit = Annotated[
    Path | None, typer.Option(help="Folder of an audit, for its suspects; default: the one beside DATASET.")
]
Seed = Annotated[int, typer.Option(help="Of the random queue's order.")]
Sample = Annotated[int, typer.Option(help="Rows in the random queue at most.", min=1)]


@commands.command()
def review(
    dataset: AnyDataset,
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 0,
    reviewer: Annotated[str, typer.Option(help="Who you are; else the page asks.")] = "",
    audit: Audit = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
    votes_to: VotesTo = None,
    store: Store = None,
    cap: Annotated[int, typer.Option(help="Rows that are enough for one reviewer a day.", min=1)] = 200,
    sample: Sample = 300,
    seed: Seed = 0,
) -> None:
    """Judge rows of a dataset in the browser, blind, on this machine alone."""
    from flows.review_commands import ReviewOptions, serve

    serve(
        HERE.resolve(),
        dataset,
        ReviewOptions(audit, seed, sample),
        store=store,
        votes_to=votes_to,
        port=port,
        reviewer=reviewer,
        cap=cap,
        browser=not no_browser,
    )


@review_votes.command("status")
def review_status(
    dataset: AnyDataset, audit: Audit = None, store: Store = None, sample: Sample = 300, seed: Seed = 0
) -> None:
    """Show how far everybody is, and whether votes wait to be written."""
    from flows.review_commands import ReviewOptions, show_votes

    show_votes(HERE.resolve(), dataset, ReviewOptions(audit, seed, sample), store=store)


@review_votes.command("export")
def review_export(
    dataset: AnyDataset,
    store: Store = None,
    votes_to: VotesTo = None,
    only_gold: Annotated[
        bool, typer.Option("--only-gold", help="Only votes that may measure others.")
    ] = False,
) -> None:
    """Bring the file of votes up to date; lines of others in it stay as they are."""
    from flows.review_commands import export_votes

    export_votes(HERE.resolve(), dataset, store=store, votes_to=votes_to, gold=only_gold)


@review_votes.command("to-label-studio")
def review_to_label_studio(
    dataset: AnyDataset,
    out: NewFolder,
    queue: Annotated[
        str, typer.Option(help="Which rows: random, suspects, disagreements, class:NAME.")
    ] = "random",
    prefix: Annotated[
        str | None, typer.Option(help="What stands before images/… in a task; default: Label Studio's own.")
    ] = None,
    with_votes: Annotated[
        bool, typer.Option("--with-votes", help="Also the dataset's votes, as predictions.")
    ] = False,
    audit: Audit = None,
    sample: Sample = 300,
    seed: Seed = 0,
) -> None:
    """Write rows as tasks for Label Studio."""
    from flows.review_commands import ReviewOptions, to_label_studio

    options = ReviewOptions(audit, seed, sample)
    to_label_studio(dataset, options, out, queue=queue, prefix=prefix, with_votes=with_votes)


@review_votes.command("from-label-studio")
def review_from_label_studio(
    dataset: AnyDataset,
    file: Annotated[Path, typer.Argument(help="What Label Studio exported as JSON.")],
    store: Store = None,
    name: Annotated[
        list[str] | None, typer.Option(help="WHO=NAME: an e-mail address or id, and the reviewer it is.")
    ] = None,
    gold: Annotated[
        bool, typer.Option("--gold", help="The tasks were the random queue, and nobody saw votes.")
    ] = False,
) -> None:
    """Take what was answered in Label Studio as votes."""
    from flows.review_commands import from_label_studio

    from_label_studio(HERE.resolve(), dataset, file, store=store, names=name or [], gold=gold)
