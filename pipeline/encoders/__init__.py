"""Encoders and readers that run on the processor, with weights from local files.

Importing this package is quick: torch, open_clip, onnxruntime and rapidocr are imported by the loaders.
The same input gives the same output whatever else is in the call: threads are fixed and batches are padded
to one size. Scores still differ in the last bits between kinds of processor, so round before deciding.
"""

from pipeline.encoders.checkpoint import OpenClipEncoder
from pipeline.encoders.choose import check_encoder, encoder_identity, load_encoder
from pipeline.encoders.faces import Face, FaceDetector, load_face_detector
from pipeline.encoders.features import FeatureStore
from pipeline.encoders.image import ImageEncoder, ImageTextEncoder, load_image_encoder
from pipeline.encoders.nudity import NudityClassifier, load_nudity_classifier
from pipeline.encoders.ocr import ReadText, TextReader
from pipeline.encoders.spread import EncoderAt, decoded
from pipeline.encoders.text import TextEncoder, load_text_encoder

__all__ = [
    "EncoderAt",
    "Face",
    "FaceDetector",
    "FeatureStore",
    "ImageEncoder",
    "ImageTextEncoder",
    "NudityClassifier",
    "OpenClipEncoder",
    "ReadText",
    "TextEncoder",
    "TextReader",
    "check_encoder",
    "decoded",
    "encoder_identity",
    "load_encoder",
    "load_face_detector",
    "load_image_encoder",
    "load_nudity_classifier",
    "load_text_encoder",
]
