"""Inputs that are refused: formats that SegMitos cannot read, by their names, pipes and devices."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_CONVERT = "convert it to a pyramidal OME-TIFF, e.g. with QuPath or bfconvert"

REFUSED_SUFFIXES = {
    ".vsi": f"Olympus VSI, which keeps its pixels in .ets files elsewhere, is not read; {_CONVERT}",
    ".ets": f"part of an Olympus VSI slide, which is not read; {_CONVERT}",
    ".companion.ome": "the text of an OME-TIFF of several files, not an image; name a TIFF of it",
    ".ome.xml": "the text of an OME image, not an image",
    ".afi": "a list of Aperio fluorescence images; only brightfield images are read",
    ".ndpis": "a list of Hamamatsu fluorescence images; only brightfield images are read",
    ".isyntax": f"Philips iSyntax is not read; {_CONVERT}",
    ".i2syntax": f"Philips iSyntax is not read; {_CONVERT}",
    ".kfb": f"KFBio slides are not read; {_CONVERT}",
    ".sdpc": f"SQRAY slides are not read; {_CONVERT}",
    ".tmap": f"UNIC slides are not read; {_CONVERT}",
    ".mds": f"Motic slides are not read; {_CONVERT}",
    ".mdsx": f"Motic slides are not read; {_CONVERT}",
    ".lif": f"Leica LIF is not read; {_CONVERT}",
    ".nd2": f"Nikon ND2 is not read; {_CONVERT}",
    ".oir": f"Olympus OIR is not read; {_CONVERT}",
    ".zarr": f"Zarr is not read; {_CONVERT}",
    ".jp2": f"JPEG 2000 files are not read; {_CONVERT}",
    ".j2k": f"JPEG 2000 files are not read; {_CONVERT}",
    ".jpx": f"JPEG 2000 files are not read; {_CONVERT}",
}
"""Endings of names, and what to say of such a file."""
UNREAD_SUFFIXES = frozenset(
    {
        *(".gif", ".webp", ".heic", ".heif", ".avif", ".jxl", ".jxr", ".psd", ".xcf", ".tga"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".ico", ".exr", ".hdr", ".dib", ".eps", ".svg"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".ims", ".lsm", ".zvi"),
    }
)
"""Endings of other images: passed over in folders, and counted aloud."""


def refused_suffix(name: str) -> str | None:
    """Say why a file of this name is not read, None where it may be."""
    folded = name.lower()
    return next((why for end, why in REFUSED_SUFFIXES.items() if folded.endswith(end)), None)


def special_file(path: Path) -> str:
    """Say what a path is, if it is neither missing, a folder nor a regular file.

    Opening a pipe, a socket or a device may wait for ever.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    kinds = (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "")
