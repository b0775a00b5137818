"""The flow of the stage assemble."""

from flows.stage import stage_flow, stage_task

__all__ = ["assemble", "assemble_flow"]

assemble = stage_task("assemble")
assemble_flow = stage_flow("assemble", assemble)
