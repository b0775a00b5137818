"""Stage respond: a helpful answer, a refusal with its rationale, or support; each checked."""

from pipeline.respond.stage import run

__all__ = ["run"]
