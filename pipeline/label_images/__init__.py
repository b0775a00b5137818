"""Stage label_images: is the image safe, and which class is it."""

from pipeline.label_images.stage import requests, run

__all__ = ["requests", "run"]
