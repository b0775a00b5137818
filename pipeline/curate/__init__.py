"""Stage curate: one format, no metadata, no near-duplicates, and a side of the split for each group."""

from pipeline.curate.stage import run

__all__ = ["run"]
