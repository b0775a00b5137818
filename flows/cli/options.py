"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["HERE", "AnyDataset", "Json", "JsonToo", "NewFolder"]

AnyDataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="Ours, a holisafe_bench.json or its folder, Parquet, or hub:OWNER/NAME."
    ),
]
Json = Annotated[Path, typer.Option("--json", help="Where to write the result.")]
JsonToo = Annotated[Path | None, typer.Option("--json", help="Where to write it as JSON, too.")]
NewFolder = Annotated[Path, typer.Option("--out", help="A folder that is not there yet.")]
HERE = Path()
