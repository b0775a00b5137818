"""Stage generate: pictures from programs and from diffusion models."""

from pipeline.generate.draw import DrawingError, DrawnImage, draw
from pipeline.generate.stage import drawings_of, encode, image_seed, run

__all__ = ["DrawingError", "DrawnImage", "draw", "drawings_of", "encode", "image_seed", "run"]
