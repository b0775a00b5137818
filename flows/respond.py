"""The flow of the stage respond."""

from flows.stage import stage_flow, stage_task

__all__ = ["respond", "respond_flow"]

respond = stage_task("respond")
respond_flow = stage_flow("respond", respond)
