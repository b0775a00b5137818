"""The flow of the stage synthesize."""

from flows.stage import stage_flow, stage_task

__all__ = ["synthesize", "synthesize_flow"]

synthesize = stage_task("synthesize")
synthesize_flow = stage_flow("synthesize", synthesize)
