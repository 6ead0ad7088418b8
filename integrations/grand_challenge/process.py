"""The entry point of a Grand Challenge algorithm: one image in, mitotic-figures.json out.

    python process.py INPUT OUTPUT

INPUT holds one image, anywhere below it (`images/histopathology-roi-cropout/x.tiff` in the MIDOG
challenges). OUTPUT gets `mitotic-figures.json`: points in millimeters, each named "mitotic figure"
or "non-mitotic figure" by whether it lies above the model's thresholds, with its probability.
SEGMITOS_MPP gives the scale of images that do not say it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from segmitos.console import run_script
from segmitos.detection.model import Model
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.errors import InputError, UsageError
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.write import write_annotations
from segmitos.io.slide import Slide, find_images


def process(source: Path, target: Path) -> int:
    """Detect on the one image below `source`, write the points to `target`.

    Raises:
        InputError: unless there is exactly one image.
    """
    images = find_images([source])
    if len(images) != 1:
        raise InputError(f"{source} holds {len(images)} images; a Grand Challenge job has one")
    given = os.environ.get("SEGMITOS_MPP")
    try:
        mpp = None if given is None else float(given)
    except ValueError as error:
        raise UsageError(f"SEGMITOS_MPP={given!r} is not a number of um per pixel") from error
    with Slide.open(images[0], mpp=mpp) as slide:
        result = detect_slide(slide, Model.load(), DetectOptions(mpp=mpp))
    found = result.candidates
    labels = tuple("mitosis" if kept else "non-mitosis" for kept in found.is_detection)
    points = Annotations(found.xy, labels, found.score, mpp=found.mpp, name=found.name)
    write_annotations(target / "mitotic-figures.json", points, "grand-challenge")
    print(f"{images[0].name}: {len(result.detections)} mitotic figures")
    return 0


def main() -> int:
    if len(sys.argv) != 3:
        raise UsageError("usage: process.py INPUT OUTPUT")
    return process(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(run_script(main, "segmitos"))
