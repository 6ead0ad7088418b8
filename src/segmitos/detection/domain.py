"""Is this input like what the model was trained on: H&E, in focus, at about its scale?

A few squares of tissue are measured at the model's scale, in the input's own stain, and compared
with fields of the laboratories of the training. Three measures, each with a limit that the model
file holds:

- **stain**: distance of the color of the tissue, in optical density, from the nearest field of the
  reference. Far: no H&E, a grayscale copy, channels in the wrong order, no tissue at all.
- **focus**: distance of the loss of contrast from one resolution to the next from the nearest field
  of the reference. Far: out of focus, heavily compressed, noisy.
- **scale**: by how many octaves (factors of two) the texture looks magnified, from a regression on
  the contrast at six resolutions and the width of dark structures. Far: a wrong um/px.

The limits are set so that at most 2 % of the fields of a laboratory left out of the reference are
warned of; `python -m experiments.domain` measures that and what is caught.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from segmitos.detection.stain import OD_TABLE, tissue_pixels

# Squares of tissue that are measured, spread over the input.
MAX_SQUARES = 8
SQUARE_PX = 192
# Fewer pixels of tissue say nothing.
MIN_TISSUE_PX = 1000
LEVELS = 6
# Dark structures are those darker than this fraction of the pixels.
DARK_FRACTIONS = (0.7, 0.85, 0.95)
_MAX_OD = 2.5
# The regression was fitted to magnifications well within this; beyond it the figure says nothing.
_MAX_OCTAVES = 3.0
_TINY = 1e-6

Pixels = NDArray[np.uint8]
Vector = NDArray[np.float64]


class Neighbors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reference to which an input's distance is that of its nearest member."""

    spread: tuple[float, ...]
    """By which each feature is divided."""
    members: tuple[tuple[float, ...], ...]
    limit: float
    """Distance from which on an input is warned of."""

    def distance(self, features: Vector) -> float:
        """Return the distance of a vector of features from its nearest member, in spreads."""
        offsets = (np.asarray(self.members) - features) / np.asarray(self.spread)
        return float(np.sqrt((offsets**2).sum(axis=1).min()))


class ScaleRegression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ridge regression on features and their squares that gives octaves of magnification."""

    center: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    limit: float
    """Octaves, either way, from which on an input is warned of."""

    def octaves(self, features: Vector) -> float:
        """Return by how many factors of two the texture looks magnified."""
        scaled = (features - np.asarray(self.center)) / np.asarray(self.spread)
        return float(np.concatenate([scaled, scaled**2, [1.0]]) @ np.asarray(self.weights))


class DomainReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's training laboratories look like; a part of the model file."""

    laboratories: tuple[str, ...]
    stain: Neighbors
    focus: Neighbors
    scale: ScaleRegression

    def warnings(self, features: DomainFeatures, mpp: float) -> tuple[str, ...]:
        """Return one sentence for each measure that is past its limit.

        Args:
            features: of the input.
            mpp: um per pixel that it was read at, the model's.
        """
        found = []
        stain = self.stain.distance(features.stain)
        if stain > self.stain.limit:
            found.append(
                f"stain unlike the training laboratories' H&E: distance {stain:.1f}, limit "
                f"{self.stain.limit:.1f}; is this H&E, in color?"
            )
        focus = self.focus.distance(features.focus)
        if focus > self.focus.limit:
            found.append(
                f"sharpness unlike the training laboratories': distance {focus:.1f}, limit "
                f"{self.focus.limit:.1f}; out of focus, noisy or heavily compressed?"
            )
        octaves = self.scale.octaves(features.scale)
        if abs(octaves) > self.scale.limit:
            found.append(_scale_warning(octaves, self.scale.limit, mpp))
        return tuple(found)


def _scale_warning(octaves: float, limit: float, mpp: float) -> str:
    """Say that texture looks finer (octaves above 0) or coarser than the scale that is stated."""
    within = abs(octaves) <= _MAX_OCTAVES
    shown = octaves if within else math.copysign(_MAX_OCTAVES, octaves)
    about = "about" if within else "less than" if shown > 0 else "more than"
    times = f"{'' if within else 'more than '}{2.0 ** abs(shown):.1f} times"
    return (
        f"texture looks like {about} {mpp * 2.0**-shown:.2g} um per pixel where it is read as "
        f"{mpp:g}: {times} as {'fine' if shown > 0 else 'coarse'}, limit {2.0**limit:.1f} times; "
        "is the scale right?"
    )


@dataclass(frozen=True)
class DomainFeatures:
    """What is measured on an input.

    Attributes:
        stain: fraction of optical density in red and in blue, log of the spread of the former,
            and how both change from pale to dark tissue; (5,).
        focus: log ratios of the contrast at 0.25, 0.5 and 1 um per pixel; (2,).
        scale: log ratios of the contrast at successive resolutions, log widths of dark
            structures, skewness of red density; (9,).
    """

    stain: Vector
    focus: Vector
    scale: Vector


def measure_domain(squares: Sequence[Pixels]) -> DomainFeatures | None:
    """Measure squares of tissue, each (h, w, 3) uint8 RGB at the model's scale.

    Returns:
        The features; None where there is too little tissue to say anything.
    """
    usable = [square for square in squares if min(square.shape[:2]) >= 2**LEVELS]
    if not usable:
        return None
    # A quarter of the pixels is enough to measure colors.
    stain = _stain(np.concatenate([square[::2, ::2].reshape(-1, 3) for square in usable]))
    if stain is None:
        return None
    contrast, smoothed = _contrasts([_red_density(square) for square in usable])
    ratios = np.log((contrast[:-1] + _TINY) / (contrast[1:] + _TINY))
    scale = np.concatenate([ratios, _widths(smoothed), [_skewness(smoothed)]])
    return DomainFeatures(stain, ratios[:2], scale)


def _stain(pixels: Pixels) -> Vector | None:
    density = np.minimum(OD_TABLE[pixels[tissue_pixels(pixels)]], _MAX_OD)
    if len(density) < MIN_TISSUE_PX:
        return None
    total = density[:, 0] + density[:, 1] + density[:, 2]
    whole = _fractions(density, total)
    dark = total >= np.partition(total, int(0.9 * len(total)))[int(0.9 * len(total))]
    pale = total <= np.partition(total, len(total) // 2)[len(total) // 2]
    change = _fractions(density[dark], total[dark]) - _fractions(density[pale], total[pale])
    offset = density[:, 0] - whole[0] * total
    spread = np.sqrt((offset**2 / total).sum() / total.sum())
    return np.array([*whole, np.log(spread + 1e-4), *change], np.float64)


def _fractions(density: NDArray[np.float32], total: NDArray[np.float32]) -> Vector:
    """Return the fractions of all optical density that are in red and in blue."""
    sums: Vector = density.sum(axis=0, dtype=np.float64)
    fractions: Vector = sums[[0, 2]] / total.sum(dtype=np.float64)
    return fractions


def _red_density(square: Pixels) -> NDArray[np.float32]:
    """Return the optical density in red, which nuclei have and eosin has not.

    The sides are cut to multiples of 2**LEVELS, to be halved evenly at every level.
    """
    height, width = (side // 2**LEVELS * 2**LEVELS for side in square.shape[:2])
    return np.minimum(OD_TABLE[square[:height, :width, 0]], np.float32(_MAX_OD))


def _contrasts(
    squares: Sequence[NDArray[np.float32]],
) -> tuple[Vector, list[NDArray[np.float32]]]:
    """Return the variance lost at each halving of the resolution, and the images halved once."""
    contrast, halved_once = np.zeros(LEVELS), []
    for square in squares:
        image: NDArray[np.float32] = square
        for level in range(LEVELS):
            parts = (image[::2, ::2], image[1::2, ::2], image[::2, 1::2], image[1::2, 1::2])
            half = (parts[0] + parts[1] + parts[2] + parts[3]) / np.float32(4)
            squared = sum(float((part * part).mean()) for part in parts) / 4
            contrast[level] += max(0.0, squared - float((half * half).mean())) * square.size
            image = half
            if level == 0:
                halved_once.append(half)
    return contrast / sum(square.size for square in squares), halved_once


def _widths(images: Sequence[NDArray[np.float32]]) -> Vector:
    """Return the log mean width, along rows and columns, of what is darker than most."""
    values = np.concatenate([image.ravel() for image in images])
    places = [int(fraction * len(values)) for fraction in DARK_FRACTIONS]
    thresholds = np.partition(values, places)[places]
    widths = []
    for threshold in thresholds:
        dark, runs = 0, 0
        for image in images:
            mask = image > threshold
            dark += int(np.count_nonzero(mask))
            runs += int(np.count_nonzero(mask[:, 1:] & ~mask[:, :-1]))
            runs += int(np.count_nonzero(mask[1:] & ~mask[:-1]))
        widths.append(np.log(2 * max(dark, 1) / max(runs, 1)))
    return np.array(widths)


def _skewness(images: Sequence[NDArray[np.float32]]) -> float:
    values = np.concatenate([image.ravel() for image in images]).astype(np.float64)
    spread = values.std()
    return float((((values - values.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0
