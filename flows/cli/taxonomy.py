"""Commands about the classes of harm, and about policies in other words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import HERE, JsonToo

__all__ = ["commands", "taxonomy"]

commands = typer.Typer()
taxonomy = typer.Typer(help="The classes of harm and their policies.", no_args_is_help=True)


@taxonomy.command("show")
def taxonomy_show(
    name: Annotated[str | None, typer.Argument(help="One class; default: all.")] = None,
) -> None:
    """Show the classes, or the whole policy of one."""
    from flows.commands import show_taxonomy

    show_taxonomy(HERE.resolve(), name)


@taxonomy.command("check")
def taxonomy_check() -> None:
    """Check params, taxonomy, query scenes and responses, and say what is wrong."""
    from flows.commands import check_taxonomy

    check_taxonomy(HERE.resolve())


@taxonomy.command("add")
def taxonomy_add(
    category: Annotated[str, typer.Argument(help="One of the taxonomy's, or a new one.")],
    name: Annotated[str, typer.Argument(help="Of the class: small letters, digits and _.")],
    title: Annotated[str, typer.Option("--title", help="For people; default: the name.")] = "",
    filled: Annotated[
        Path | None, typer.Option("--from", help="YAML with `class` and `scenes`; default: gaps to fill.")
    ] = None,
) -> None:
    """Add a class: policy, concepts, prompts, quotas and query scenes, with an id of its own for good."""
    from flows.taxonomy_commands import add_to_taxonomy

    add_to_taxonomy(HERE.resolve(), category, name, title or name.replace("_", " ").capitalize(), filled)


@taxonomy.command("retire")
def taxonomy_retire(
    name: Annotated[str, typer.Argument(help="Of the class.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what goes.")] = False,
) -> None:
    """Take a class away, and say which rows go with it. Its id is never used again."""
    from flows.taxonomy_commands import retire_from_taxonomy

    retire_from_taxonomy(HERE.resolve(), name, yes=yes)


@taxonomy.command("lock")
def taxonomy_lock(
    note: Annotated[str, typer.Option("--note", help="Why, for the change log.")] = "",
) -> None:
    """Give classes that were written into the taxonomy by hand their ids for good."""
    from flows.taxonomy_commands import lock_taxonomy

    lock_taxonomy(HERE.resolve(), note)


@taxonomy.command("log")
def taxonomy_log() -> None:
    """Show which classes came and went, by version of the taxonomy."""
    from flows.taxonomy_commands import show_taxonomy_log

    show_taxonomy_log(HERE.resolve())


@commands.command()
def relabel(
    policy: Annotated[
        Path, typer.Option("--policy", help="A copy of the taxonomy whose policies are worded otherwise.")
    ],
    json: JsonToo = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many calls it would be, send none.")
    ] = False,
) -> None:
    """Ask again what changed clauses of the policy decide, and show which labels flip. Changes no table."""
    from flows.policy_commands import relabel_with

    relabel_with(HERE.resolve(), policy, json, dry_run=dry_run)
