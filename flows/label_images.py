"""The flow of the stage label_images."""

from flows.stage import stage_flow, stage_task

__all__ = ["label_images", "label_images_flow"]

label_images = stage_task("label_images")
label_images_flow = stage_flow("label_images", label_images)
