"""A slide whose scanned area begins somewhere on its canvas: Leica SCN, which OpenSlide reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

MPP = 0.25
_NM = 250

_XML = """<?xml version="1.0" encoding="utf-8"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection name="c" uuid="urn:uuid:0" sizeX="{canvas_w}" sizeY="{canvas_h}"><barcode></barcode>
{images}
</collection></scn>"""
_IMAGE = """<image name="{name}" uuid="urn:uuid:{ifd}">
<creationDate>2020-01-01T00:00:00Z</creationDate><device model="Leica SCN400" version="1"/>
<pixels sizeX="{w}" sizeY="{h}"><dimension sizeX="{w}" sizeY="{h}" r="0" ifd="{ifd}"/></pixels>
<view sizeX="{view_w}" sizeY="{view_h}" offsetX="{x}" offsetY="{y}"/>
<scanSettings><objectiveSettings><objective>{objective}</objective></objectiveSettings>
<illuminationSettings><illuminationSource>brightfield</illuminationSource>
<numericalAperture>0.5</numericalAperture></illuminationSettings></scanSettings></image>"""


def save_scn(
    path: Path, image: np.ndarray, offset: tuple[int, int], canvas: tuple[int, int]
) -> Path:
    """Write `image` (h, w, 3) at an offset (x, y) of a canvas (w, h), all in level-0 pixels."""
    height, width = image.shape[:2]
    macro = np.full((64, 96, 3), 235, np.uint8)
    whole = {"view_w": canvas[0] * _NM, "view_h": canvas[1] * _NM, "x": 0, "y": 0}
    part = {
        "view_w": width * _NM,
        "view_h": height * _NM,
        "x": offset[0] * _NM,
        "y": offset[1] * _NM,
    }
    images = [
        _IMAGE.format(name="macro", ifd=0, w=96, h=64, objective=0.6, **whole),
        _IMAGE.format(name="main", ifd=1, w=width, h=height, objective=40, **part),
    ]
    text = _XML.format(canvas_w=whole["view_w"], canvas_h=whole["view_h"], images="\n".join(images))
    options: dict[str, Any] = {
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 95},
        "tile": (256, 256),
        "metadata": None,
        "resolutionunit": "CENTIMETER",
        "resolution": (1e4 / MPP, 1e4 / MPP),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(macro, description=text, **options)
        tiff.write(image, **options)
    return path
