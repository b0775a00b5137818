"""Stage label_images: is the image safe, and which class is it."""

from pipeline.label_images.stage import run

__all__ = ["run"]
