"""Stage label_pairs: is the text safe, is the pair safe; a pair is kept when its labels give its type."""

from pipeline.label_pairs.stage import requests, run

__all__ = ["requests", "run"]
