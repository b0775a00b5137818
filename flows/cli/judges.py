"""Commands that judge what models answered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import Json

__all__ = ["judge"]

judge = typer.Typer(help="Judge what models answered.", no_args_is_help=True)


@judge.command("responses")
def judge_responses(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON Lines with id and response; query too, if known.")
    ],
    json: Json,
    name: Annotated[
        Literal["refusal", "official-string"],
        typer.Option("--judge", help="Ours, or HoliSafe's published string rule."),
    ] = "refusal",
) -> None:
    """Say of each response whether it refuses: verdict, score and why, offline."""
    from flows.judge_commands import judge_response_file

    judge_response_file(file, json, name)
