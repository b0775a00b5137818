"""The flow of the stage audit."""

from flows.stage import stage_flow, stage_task

__all__ = ["audit", "audit_flow"]

audit = stage_task("audit")
audit_flow = stage_flow("audit", audit)
