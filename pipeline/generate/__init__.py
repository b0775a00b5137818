"""Stage generate: pictures from programs, from diffusion models, and from endpoints that make images."""

from pipeline.generate.draw import DrawingError, DrawnImage, draw
from pipeline.generate.encoding import encode, image_seed
from pipeline.generate.pictures import requests
from pipeline.generate.stage import drawings_of, run

__all__ = ["DrawingError", "DrawnImage", "draw", "drawings_of", "encode", "image_seed", "requests", "run"]
