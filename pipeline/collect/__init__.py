"""Stage collect: images from sources, each with its origin and licence."""

from pipeline.collect.stage import run

__all__ = ["run"]
