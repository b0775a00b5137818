"""The flow of the stage generate."""

from flows.stage import stage_flow, stage_task

__all__ = ["generate", "generate_flow"]

generate = stage_task("generate")
generate_flow = stage_flow("generate", generate)
