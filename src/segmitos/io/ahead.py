"""Decodes an image that is about to be opened, while numpy, the runtime and the model load.

Imports nothing heavy, so that it can start before everything else.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Larger ones may be refused; that is decided where they are opened.
_LARGEST_PX = 50_000_000
_pending: dict[str, _Decoding] = {}


class _Decoding(threading.Thread):
    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.image: ImageFile | None = None

    def run(self) -> None:
        # What goes wrong here goes wrong again, and is told, where the image is used.
        with contextlib.suppress(Exception):
            with open(self._path, "rb") as file:
                head = file.read(3)
            if head == b"\x89PN":
                from PIL.PngImagePlugin import PngImageFile as Plugin
            elif head == b"\xff\xd8\xff":
                from PIL.JpegImagePlugin import JpegImageFile as Plugin  # type: ignore[assignment]
            else:
                return
            with Plugin(self._path) as image:
                if image.width * image.height <= _LARGEST_PX:
                    image.load()
                    self.image = image


def read_ahead(path: str) -> None:
    """Begin to decode a PNG or JPEG file in the background; anything else is left alone."""
    name = os.path.abspath(path)
    if name not in _pending:
        _pending[name] = _Decoding(name)
        _pending[name].start()


def take(path: Path) -> ImageFile | None:
    """Return the decoded image, once; None where there is none."""
    decoding = _pending.pop(os.path.abspath(path), None)
    if decoding is None:
        return None
    decoding.join()
    return decoding.image
