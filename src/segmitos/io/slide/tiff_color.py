"""From the samples of a TIFF page to RGB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmitos.errors import InputError
from segmitos.io.slide.backend import Pixels, on_white

Samples = npt.NDArray[Any]

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEG_FAMILY = (6, 7, 34892, 33007)
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
_ASSOCIATED_ALPHA, _PLAIN_ALPHA = 1, 2


def color_reader(path: Path, page: Any, samples: int) -> Callable[[Samples], Pixels]:
    """The function that turns samples (h, w, s), 8-bit or bilevel, into RGB (h, w, 3).

    Args:
        path: for the message.
        page: tifffile's page.
        samples: per pixel, with those of channels stored as pages of their own.

    Raises:
        InputError: for sample types and color spaces that have no known RGB.
    """
    photometric, compression = int(page.photometric), int(page.compression)
    extra = [int(value) for value in page.extrasamples]
    alpha = next((kind for kind in extra if kind in (_ASSOCIATED_ALPHA, _PLAIN_ALPHA)), 0)
    if page.dtype not in (np.uint8, np.uint16, np.bool_):
        kind = page.dtype if page.dtype is not None else f"{page.bitspersample}-bit"
        raise InputError(f"{path}: {kind} samples cannot be read; convert the image to 8-bit RGB")
    if page.dtype == np.bool_ and samples == 1 and photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        return lambda a: np.where(_grey(a) == photometric, 255, 0).astype(np.uint8)
    if photometric == _PALETTE and samples == 1 and page.colormap is not None:
        return _palette_reader(np.asarray(page.colormap))
    if photometric == _WHITE_IS_ZERO and samples == 1:
        return lambda a: 255 - _grey(a)
    if photometric == _BLACK_IS_ZERO and samples == 1:
        return _grey
    if photometric == _BLACK_IS_ZERO and samples == 2 and alpha:
        return lambda a: _over_white(_grey(a[..., :1]), a[..., 1], alpha)
    if photometric == _BLACK_IS_ZERO and samples == 3 and int(page.samplesperpixel) == 1:
        # Three pages that the file itself names red, green and blue.
        return np.ascontiguousarray
    if photometric == _CMYK and samples == 4 and compression not in _JPEG_FAMILY:
        return lambda a: _through_pillow(a, "CMYK")
    if photometric == _YCBCR and samples == 3:
        if compression in _LOSSLESS:
            return lambda a: _through_pillow(a, "YCbCr")
        return np.ascontiguousarray
    if photometric == _RGB and samples == 3:
        return np.ascontiguousarray
    if photometric == _RGB and samples == 4:
        if alpha:
            return lambda a: _over_white(a[..., :3], a[..., 3], alpha)
        return lambda a: np.ascontiguousarray(a[..., :3])
    name = str(getattr(page.photometric, "name", photometric))
    hint = ", as in fluorescence" if samples > 4 or photometric == _BLACK_IS_ZERO else ""
    raise InputError(
        f"{path}: {samples} samples per pixel, color space {name}{hint}; only brightfield RGB "
        "or grey images are read"
    )


def _grey(samples: Samples) -> Pixels:
    return np.repeat(samples, 3, axis=2)


def _over_white(color: Samples, alpha: Samples, kind: int) -> Pixels:
    if kind == _PLAIN_ALPHA:
        return on_white(color, alpha)
    # Associated alpha: the color has been multiplied by it already.
    white = 255 - alpha.astype(np.uint16)[..., None]
    return np.minimum(color + white, 255).astype(np.uint8)


def _through_pillow(samples: Samples, mode: str) -> Pixels:
    from PIL import Image

    height, width = samples.shape[:2]
    content = np.ascontiguousarray(samples).tobytes()
    return np.asarray(Image.frombytes(mode, (width, height), content).convert("RGB"))


def _palette_reader(colormap: Samples) -> Callable[[Samples], Pixels]:
    # The standard has 16-bit entries; some writers put 8-bit ones.
    table = (colormap >> 8 if colormap.max() > 255 else colormap).astype(np.uint8).T
    return lambda a: table[a[..., 0].astype(np.intp)]
