"""Pixel masks that a format does not hold as pictures, drawn once and kept in the user's cache.

`$XDG_CACHE_HOME/segmitos/masks`, or `~/.cache/segmitos/masks`. A file's name is a digest of all
that it was drawn from, so that it never goes stale and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.files import image_bytes, write_bytes

_HALF = 127


def cached(drawn_from: bytes, suffix: str) -> Path:
    """Return where the cache keeps what is drawn from these bytes."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(drawn_from).hexdigest()[:32]
    return Path(root) / "segmitos" / "masks" / f"{name}{suffix}"


def save_mask(mask: NDArray[np.uint8], path: Path) -> None:
    """Write a mask (h, w), 0 or 255, as PNG. Raises OutputError as `write_bytes` does."""
    write_bytes(path, image_bytes(mask))


def read_mask(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read a picture of a mask, 0 and 255: (h, w), stretched to `size` (width, height) if given.

    Raises:
        DataError: if it cannot be read, or holds numbers that are neither: 0 and 1, say.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            gray = opened.convert("L")
            brightest = int(np.asarray(gray).max())
            if size is not None:
                gray = gray.resize(size, Image.Resampling.NEAREST)
            filled: NDArray[np.bool_] = np.asarray(gray) > _HALF
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read mask {path}: {error}") from error
    if 0 < brightest <= _HALF:
        raise DataError(
            f"mask {path} holds nothing brighter than {brightest}: write 255 for mitoses, 0 for "
            "all else"
        )
    return filled
