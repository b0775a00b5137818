"""Stage label_images: is the image safe, and which class is it."""

from pipeline.label_images.stage import image_items, requests, run

__all__ = ["image_items", "requests", "run"]
