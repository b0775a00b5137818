"""Encoders and readers that run on the processor, with weights from local files.

Importing this package is quick: torch, open_clip, onnxruntime and rapidocr are imported by the loaders.
The same input gives the same output whatever else is in the call: threads are fixed and batches are padded
to one size. Scores still differ in the last bits between kinds of processor, so round before deciding.
"""

from pipeline.encoders.image import (
    ImageEncoder,
    ImageTextEncoder,
    OpenClipEncoder,
    load_image_encoder,
    load_open_clip,
)
from pipeline.encoders.nudity import NudityClassifier, load_nudity_classifier
from pipeline.encoders.ocr import ReadText, TextReader
from pipeline.encoders.text import TextEncoder, load_text_encoder

__all__ = [
    "ImageEncoder",
    "ImageTextEncoder",
    "NudityClassifier",
    "OpenClipEncoder",
    "ReadText",
    "TextEncoder",
    "TextReader",
    "load_image_encoder",
    "load_nudity_classifier",
    "load_open_clip",
    "load_text_encoder",
]
