"""Images and slides: one face for every file, read by region at any scale."""

from segmitos.io.slide.entry import InputEntry
from segmitos.io.slide.find import find_images, find_inputs
from segmitos.io.slide.slide import READERS, Slide

__all__ = ["READERS", "InputEntry", "Slide", "find_images", "find_inputs"]
