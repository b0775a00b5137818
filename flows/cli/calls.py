"""Commands about model calls, and an endpoint that answers from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import HERE, JsonToo

__all__ = ["calls", "endpoint"]

calls = typer.Typer(help="The model calls that were answered.", no_args_is_help=True)
endpoint = typer.Typer(help="Endpoints of our own.", no_args_is_help=True)


@calls.command("show")
def calls_show(
    key: Annotated[str | None, typer.Argument(help="Start of a call's key; default: the last ones.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only calls of this stage.")] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
) -> None:
    """Show a call in full, or the last calls."""
    from flows.call_commands import show_calls

    show_calls(HERE.resolve(), key, stage, limit)


@calls.command("explain")
def calls_explain(stage: Annotated[str, typer.Argument(help="A stage that asks models.")]) -> None:
    """Say why calls of a stage would be sent now: what differs from those that are answered."""
    from flows.call_commands import explain_calls

    explain_calls(HERE.resolve(), stage)


@calls.command("cost")
def calls_cost(json: JsonToo = None) -> None:
    """Show what calls took and cost, by stage, by category and for each row."""
    from flows.call_commands import show_call_costs

    show_call_costs(HERE.resolve(), json)


@calls.command("gc")
def calls_gc(
    unused: Annotated[bool, typer.Option("--unused", help="Also calls this build does not use.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would go.")] = False,
) -> None:
    """Find what no longer serves anything, and delete it with --yes."""
    from flows.call_commands import sweep_calls

    sweep_calls(HERE.resolve(), unused=unused, yes=yes)


@endpoint.command("script")
def endpoint_script(
    file: Annotated[Path, typer.Argument(help="What to answer, and how to fail; see docs/engine.md.")],
    port: Annotated[int, typer.Option(help="Where to listen on 127.0.0.1; 0 takes a free port.")] = 0,
) -> None:
    """Serve an OpenAI-compatible endpoint that answers from a file, for tests, demos and benchmarks."""
    from flows.call_commands import run_script

    run_script(file, port)
