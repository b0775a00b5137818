"""The flow of the stage label_pairs."""

from flows.stage import stage_flow, stage_task

__all__ = ["label_pairs", "label_pairs_flow"]

label_pairs = stage_task("label_pairs")
label_pairs_flow = stage_flow("label_pairs", label_pairs)
