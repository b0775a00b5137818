"""Stage synthesize: queries for every combination an image allows, in contrast squares."""

from pipeline.synthesize.stage import requests, run

__all__ = ["requests", "run"]
