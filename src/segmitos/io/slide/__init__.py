"""Images and slides: one face for every file, read by region at any scale."""

from segmitos.io.slide.find import find_images
from segmitos.io.slide.slide import Slide

__all__ = ["Slide", "find_images"]
