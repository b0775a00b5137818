"""Stage respond: a helpful answer, a refusal with its rationale, or support; each checked."""

from pipeline.respond.stage import run
from pipeline.respond.writer import estimate, requests

__all__ = ["estimate", "requests", "run"]
