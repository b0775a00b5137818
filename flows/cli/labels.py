"""Commands for any texts and images: labels, and copies of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import HERE, Json

__all__ = ["commands", "label"]

commands = typer.Typer()
label = typer.Typer(help="Label any file with the annotators of the build.", no_args_is_help=True)


@label.command("texts")
def label_texts(
    file: Annotated[Path, typer.Argument(help="JSON Lines with id and text.")], json: Json
) -> None:
    """Label texts: safe or not, class, P(unsafe), and each annotator's vote."""
    from flows.commands import label_text_file

    label_text_file(HERE.resolve(), file, json)


@label.command("images")
def label_images(folder: Annotated[Path, typer.Argument(help="Any folder with images.")], json: Json) -> None:
    """Label images: safe or not, class, P(unsafe), and each annotator's vote."""
    from flows.commands import label_image_folder

    label_image_folder(HERE.resolve(), folder, json)


@commands.command()
def dedup(
    folder: Annotated[Path, typer.Argument(help="Any folder with images, at any depth.")],
    json: Json,
    rotations: Annotated[bool, typer.Option("--rotations", help="Also copies turned by quarters.")] = False,
) -> None:
    """Find the images of a folder that are one picture: copies, edited and mirrored ones too."""
    from flows.commands import find_folder_duplicates

    find_folder_duplicates(folder, json, rotations=rotations)
