"""Data sets by name: FORMAT:PATH -> cases."""

from segmitos.io.datasets.case import Case, Points, no_points
from segmitos.io.datasets.load import FORMATS, FormatInfo, guess_format, left_out, load_dataset

__all__ = [
    "FORMATS",
    "Case",
    "FormatInfo",
    "Points",
    "guess_format",
    "left_out",
    "load_dataset",
    "no_points",
]
