"""Stage assemble: Parquet shards, HoliSafe's own format, and the dataset card."""

from pipeline.assemble.stage import run

__all__ = ["run"]
