"""Commands of a build: its folder, run it, plan it, its weights and profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import HERE, JsonToo

__all__ = ["commands", "models", "profile"]

commands = typer.Typer()
models = typer.Typer(help="The weights that the embedded profile uses.", no_args_is_help=True)
profile = typer.Typer(help="Whole params files to begin with.", no_args_is_help=True)


@commands.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Made if it is not there.")] = HERE,
) -> None:
    """Make a folder a workspace: params, taxonomy, prompts and seed images, ready for `holisafe build`."""
    from flows.workspace_commands import begin_workspace

    begin_workspace(folder)


@commands.command()
def build() -> None:
    """Run every stage whose inputs have changed, in this folder, and show what came out."""
    from flows.commands import build_workspace

    build_workspace(HERE.resolve())


@commands.command("run")
def run(stage: Annotated[str, typer.Argument(help="One of the nine stages; see `holisafe status`.")]) -> None:
    """Run one stage if its inputs have changed."""
    from flows.commands import run_one

    run_one(HERE.resolve(), stage)


@commands.command()
def status() -> None:
    """Say of each stage whether it is up to date."""
    from flows.commands import show_status

    show_status(HERE.resolve())


@commands.command("plan")
def plan(json: JsonToo = None) -> None:
    """Say what a build would do: cells, what will run and why, calls and what they cost. Nothing is sent."""
    from flows.call_commands import show_plan

    show_plan(HERE.resolve(), json)


@commands.command("deploy")
def deploy(
    pool: Annotated[
        str, typer.Option("--pool", help="The process work pool; made if it is not there.")
    ] = "holisafe",
    nightly: Annotated[
        str, typer.Option("--nightly", metavar="CRON", help="When the workspace is extended.")
    ] = "0 2 * * *",
    weekly: Annotated[
        str, typer.Option("--weekly", metavar="CRON", help="When its dataset is audited.")
    ] = "0 12 * * 0",
    timezone: Annotated[str, typer.Option("--timezone", help="Of these hours, as Europe/Berlin.")] = "UTC",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="A tag of the runs; may be repeated.")
    ] = None,
    retries: Annotated[
        int, typer.Option("--retries", help="How often a stage that failed is tried again.", min=0)
    ] = 2,
    retry_delay: Annotated[
        float, typer.Option("--retry-delay", help="Seconds before it is tried again.", min=0)
    ] = 600.0,
    served_at: Annotated[
        str,
        typer.Option("--served-at", metavar="URL", help="Where browsers find this folder; default: file://."),
    ] = "",
    notify: Annotated[
        str | None,
        typer.Option("--notify", metavar="TYPE/NAME", help="The notification block told of runs that fail."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the deployments away.")] = False,
    json: JsonToo = None,
) -> None:
    """Have a Prefect server extend this folder nightly and audit its dataset weekly (docs/prefect.md)."""
    from pipeline.extras import needs

    needs("prefect")
    from flows.deploy_commands import deploy_workspace, undeploy_workspace

    if remove:
        undeploy_workspace(HERE.resolve(), json)
        return
    from flows.deploy import Plan

    plan = Plan(
        pool=pool,
        nightly=nightly,
        weekly=weekly,
        timezone=timezone,
        tags=tuple(tag or ()),
        retries=retries,
        retry_delay_s=retry_delay,
        served_at=served_at,
        notify=notify,
    )
    deploy_workspace(HERE.resolve(), plan, json)


@models.command("list")
def models_list() -> None:
    """List the registered weights, and which are here."""
    from flows.commands import list_models

    list_models()


@models.command("pull")
def models_pull(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names from `models list`; default: all that a build uses.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the one model's file from here.")
    ] = None,
) -> None:
    """Fetch weights and check their SHA-256 before anything loads them."""
    from flows.commands import pull_models

    pull_models(HERE.resolve(), names or [], source)


@models.command("verify")
def models_verify() -> None:
    """Hash the weights that are here again."""
    from flows.commands import verify_models

    verify_models()


@profile.command("use")
def profile_use(
    name: Annotated[str, typer.Argument(help="A file under profiles/, without .yaml.")],
    yes: Annotated[bool, typer.Option("--yes", help="Overwrite a params.yaml that holds changes.")] = False,
) -> None:
    """Write a profile to params.yaml."""
    from flows.commands import write_profile

    write_profile(HERE.resolve(), name, overwrite=yes)


@profile.command("list")
def profile_list() -> None:
    """List the profiles."""
    from flows.commands import list_profiles

    list_profiles(HERE.resolve())
