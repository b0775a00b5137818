"""Stage audit: cells, agreement, annotators, failures, and a gallery to look at."""

from pipeline.audit.stage import run

__all__ = ["run"]
