"""What somebody named as a dataset, opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.anyset.bench import BENCH, open_bench
from pipeline.anyset.parquet import open_parquet
from pipeline.anyset.table import AnySet
from schemas.errors import InputError

__all__ = ["open_anyset"]

HUB = "hub:"


def open_anyset(place: str, *, may_be_empty: bool = False, votes: bool = True) -> AnySet:
    """Open a dataset: ours, a `holisafe_bench.json` or its folder, Parquet, or one of the Hub.

    Args:
        place: a file or folder, or `hub:OWNER/NAME`, `hub:OWNER/NAME@REVISION`.
        may_be_empty: whether a dataset without a row is one, too.
        votes: whether the votes in its rows are wanted.

    Raises:
        InputError: when nothing in it can be audited.
    """
    if place.startswith(HUB):
        snapshot = _fetched(place)
        # Its files are links into the blobs of the dataset in the Hub's cache.
        opened = _open(snapshot, snapshot.parent.parent / "blobs", votes=votes)
    else:
        opened = _open(Path(place), votes=votes)
    found = replace(opened, place=place)
    if found.rows.empty and not may_be_empty:
        told = "; ".join(
            " ".join(filter(None, (f"row {p.row}:", p.field, p.problem))) for p in found.problems.listed[:3]
        )
        raise InputError(f"{place}: no row can be audited ({told or 'it is empty'})")
    return found


def _open(path: Path, links_into: Path | None = None, *, votes: bool) -> AnySet:
    if path.is_file():
        return open_parquet(path, [path], votes=votes) if path.suffix == ".parquet" else open_bench(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    shards = sorted(path.glob("data/**/*.parquet"))
    if not shards and (path / BENCH).is_file():
        return open_bench(path / BENCH, links_into)
    if shards := shards or sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet")):
        return open_parquet(path, shards, votes=votes)
    raise InputError(f"{path}: neither Parquet files nor {BENCH} here; name a dataset's folder or file")


def _fetched(place: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = place.removeprefix(HUB).partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                repo_type="dataset",
                revision=revision or None,
                allow_patterns=["*.parquet", "**/*.parquet", BENCH, "images/**"],
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"{place}: cannot be fetched ({' '.join(str(error).split())[:300]}); "
            "see that the name is right, that you may read it (HF_TOKEN), and that HF_HUB_OFFLINE is not set"
        ) from error
