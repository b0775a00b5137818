"""The flow of the stage collect."""

from flows.stage import stage_flow, stage_task

__all__ = ["collect", "collect_flow"]

collect = stage_task("collect")
collect_flow = stage_flow("collect", collect)
