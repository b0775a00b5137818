"""Stage synthesize: queries for every combination an image allows, in contrast squares."""

from pipeline.synthesize.stage import estimate, requests, run

__all__ = ["estimate", "requests", "run"]
