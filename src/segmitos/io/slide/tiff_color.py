"""From the samples of a TIFF image to RGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmitos.errors import InputError
from segmitos.io.slide.backend import Pixels, on_white
from segmitos.io.slide.tiff_decode import (
    APERIO_RGB,
    APERIO_YCBCR,
    JPEG,
    JPEG_2000,
    LOSSLESS,
    Coding,
)

Samples = npt.NDArray[Any]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_COLOR_SPACES = {
    **{WHITE_IS_ZERO: "gray", BLACK_IS_ZERO: "gray", RGB: "RGB", PALETTE: "palette", CMYK: "CMYK"},
    **{YCBCR: "YCbCr", 4: "mask", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"},
    **{32803: "color filter array", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"},
}
_ASSOCIATED_ALPHA, _PLAIN_ALPHA = 1, 2


@dataclass(frozen=True)
class Coloring:
    """How samples become RGB.

    Attributes:
        to_rgb: from (h, w, samples) of 8 bits or less to RGB (h, w, 3).
        alpha: number of the sample that is transparency, None where there is none.
        is_palette: whether samples are numbers of colors.
        colors: how many samples, from the first, are colors; None: all.
    """

    to_rgb: Callable[[Samples], Pixels]
    alpha: int | None = None
    is_palette: bool = False
    colors: int | None = None


def color_reader(
    path: Path, coding: Coding, samples: int, extra: list[int], colormap: Samples
) -> Coloring:
    """How the samples of an image become RGB.

    Args:
        path: for the message.
        coding: of the samples.
        samples: per pixel, with those of channels stored apart.
        extra: what the samples beside the colors are, as the standard numbers it.
        colormap: (3, colors), empty where there is none.

    Raises:
        InputError: for sample types and color spaces that have no known RGB.
    """
    photometric, bits = coding.photometric, coding.bits
    kind = next((one for one in extra if one in (_ASSOCIATED_ALPHA, _PLAIN_ALPHA)), 0)
    gray = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    if photometric == PALETTE and samples == 1 and colormap.shape == (3, 1 << bits):
        return Coloring(_palette_reader(colormap), is_palette=True)
    if gray and samples == 1:
        if photometric == WHITE_IS_ZERO:
            return Coloring(lambda a: _gray(255 - _stretched(a, bits)))
        return Coloring(lambda a: _gray(_stretched(a, bits)))
    if photometric == BLACK_IS_ZERO and samples == 2 and kind:
        return Coloring(
            lambda a: _seen_through(_gray(a[..., :1]), a[..., 1], kind, bits), 1, colors=1
        )
    if photometric == BLACK_IS_ZERO and samples == 3 and coding.samples == 1:
        # Three images that the file itself names red, green and blue.
        return Coloring(lambda a: _stretched(a, bits))
    if photometric == CMYK and samples == 4 and coding.compression != JPEG:
        return Coloring(lambda a: _through_pillow(_stretched(a, bits), "CMYK"))
    if samples == 3 and _is_stored_as_ycbcr(coding):
        return Coloring(lambda a: _through_pillow(_stretched(a, bits), "YCbCr"))
    if photometric == YCBCR and samples == 3:
        return Coloring(np.ascontiguousarray)
    if photometric == RGB and samples == 3:
        return Coloring(lambda a: _stretched(a, bits))
    if photometric == RGB and samples == 4:
        if kind:
            return Coloring(lambda a: _seen_through(a[..., :3], a[..., 3], kind, bits), 3, colors=3)
        return Coloring(lambda a: _stretched(a[..., :3], bits), colors=3)
    name = _COLOR_SPACES.get(photometric, f"number {photometric}")
    hint = ", as in fluorescence" if samples > 4 or photometric == BLACK_IS_ZERO else ""
    raise InputError(
        f"{path}: {samples} samples per pixel, color space {name}{hint}; only brightfield RGB "
        "or gray images are read"
    )


def _is_stored_as_ycbcr(coding: Coding) -> bool:
    """Tell whether decoded samples are YCbCr still; the decoders of other pictures give RGB."""
    if coding.compression in (APERIO_YCBCR, APERIO_RGB):
        # Aperio says it by the compression, whatever the color space is said to be.
        return coding.compression == APERIO_YCBCR
    return coding.photometric == YCBCR and coding.compression in LOSSLESS.union(JPEG_2000)


def _stretched(samples: Samples, bits: int) -> Pixels:
    """Samples of `bits` bits over the range of eight; those of 16 have been brought to it."""
    if bits in (8, 16):
        return np.ascontiguousarray(samples, np.uint8)
    largest = (1 << bits) - 1
    wide = samples.astype(np.uint32) * 255
    return ((wide + largest // 2) // largest).astype(np.uint8)


def _gray(samples: Samples) -> Samples:
    return np.repeat(samples, 3, axis=2)


def _seen_through(color: Samples, alpha: Samples, kind: int, bits: int) -> Pixels:
    color, alpha = _stretched(color, bits), _stretched(alpha, bits)
    if kind == _PLAIN_ALPHA:
        return on_white(color, alpha)
    # Associated alpha: the color has been multiplied by it already.
    white = 255 - alpha.astype(np.uint16)[..., None]
    mixed: Pixels = np.minimum(color + white, 255).astype(np.uint8)
    return mixed


def _through_pillow(samples: Samples, mode: str) -> Pixels:
    from PIL import Image

    height, width = samples.shape[:2]
    content = np.ascontiguousarray(samples).tobytes()
    return np.asarray(Image.frombytes(mode, (width, height), content).convert("RGB"))


def _palette_reader(colormap: Samples) -> Callable[[Samples], Pixels]:
    # The standard has 16-bit entries; some writers put 8-bit ones.
    table: Pixels = (colormap >> 8 if colormap.max() > 255 else colormap).astype(np.uint8).T

    def read(samples: Samples) -> Pixels:
        colors: Pixels = table[samples[..., 0].astype(np.intp)]
        return colors

    return read
