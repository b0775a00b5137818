"""The flow of the stage curate."""

from flows.stage import stage_flow, stage_task

__all__ = ["curate", "curate_flow"]

curate = stage_task("curate")
curate_flow = stage_flow("curate", curate)
