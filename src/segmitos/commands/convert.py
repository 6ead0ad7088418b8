"""`segmitos convert`: points of one image from one file format to another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from segmitos.commands.progress import in_words, print_warnings
from segmitos.errors import ScaleError, UsageError
from segmitos.options import POINT_FORMATS, FilePath, overwrite_option, qupath_option

if TYPE_CHECKING:
    from segmitos.io.points.annotations import Annotations
    from segmitos.io.points.boxes import Layout
    from segmitos.io.points.classes import Classes, Label

_BY_SUFFIX = {
    ".geojson": "geojson",
    ".csv": "csv",
    ".json": "json",
    ".sqlite": "sliderunner",
    ".db": "sliderunner",
}


@click.command()
@click.argument(
    "source", type=FilePath, help="CSV, GeoJSON, JSON, Grand Challenge, COCO, MIDOG, SlideRunner."
)
@click.argument("out", type=FilePath, help="File to write.")
@click.option(
    "--to",
    type=click.Choice(POINT_FORMATS),
    help="Format; default: by the ending of OUT. midog is MIDOG's output, midog-labels its labels.",
)
@click.option("--mpp", type=float, help="Micrometers per pixel, where the file does not say it.")
@click.option(
    "--override-mpp",
    is_flag=True,
    help="Use --mpp even where the file or the slide says otherwise.",
)
@click.option("--image", help="Name of the image to take from a file of several.")
@click.option(
    "--slide",
    type=FilePath,
    help="The image the points are of: gives its scale, its size, and where QuPath's frame begins.",
)
@qupath_option
@click.option("--polygons", is_flag=True, help="Outlines of cells stand for their centroids.")
@click.option(
    "--boxes",
    type=click.Choice(["sizes", "corners"]),
    help="Boxes are [x, y, width, height] (COCO) or [x1, y1, x2, y2] (MIDOG); default: by numbers.",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=LABEL",
    help="What a class is: mitosis, non-mitosis, unsure or ignore. May be repeated.",
)
@overwrite_option
def convert(
    source: Path,
    out: Path,
    to: str | None,
    mpp: float | None,
    image: str | None,
    qupath: str,
    polygons: bool,
    boxes: Layout | None = None,
    classes: Sequence[str] = (),
    slide: Path | None = None,
    overwrite: bool = False,
    override_mpp: bool = False,
) -> None:
    """Convert points between QuPath, Grand Challenge, COCO, MIDOG, SlideRunner, CSV and JSON.

    Classes are kept; what a format cannot hold is counted on the console.

    Example: segmitos convert detections.geojson mitoses.json --to midog
    """
    from segmitos.io.datasets.table import check_inside
    from segmitos.io.geometry import check_mpp, check_override
    from segmitos.io.outputs import check_file
    from segmitos.io.points.write import FORMATS, summary_of, write_annotations

    check_override(override_mpp, mpp)
    if mpp is not None:
        check_mpp(mpp, "--mpp")
    target = to or _BY_SUFFIX.get(out.suffix.lower())
    if target not in FORMATS:
        raise UsageError(
            f"the format of {out} cannot be told; give --to with one of {', '.join(FORMATS)}"
        )
    names = _classes(classes)
    check_file(out, overwrite, sources=[source])
    size, offset = None, None
    if slide is not None:
        size, offset, mpp = _frame(slide, mpp, override_mpp)
    found = _read(
        source,
        mpp,
        override_mpp,
        qupath_offset_px=offset,
        polygons="centroid" if polygons else "refuse",
        classes=names,
        image=image,
        boxes=boxes,
    )
    if size is not None:
        check_inside(found.xy, size, source)
    lost = write_annotations(out, found, target, qupath, offset or found.qupath_offset_px, size)
    if image is not None and not len(found) and not found.left_out:
        print_warnings(
            [f"{source} has no annotation of {image}; it does not say that anybody looked"]
        )
    if found.left_out:
        print(f"left out of {source}: {summary_of(found.left_out)}", file=sys.stderr)
    if lost:
        print(f"not in {out}, as {target} cannot hold it: {summary_of(lost)}", file=sys.stderr)
    print(f"{_described(found, lost)} in {out} ({target})")


def _read(source: Path, mpp: float | None, override: bool, **how: Any) -> Annotations:
    """Read points; the scale that their file states holds, unless `mpp` overrides it.

    Where the file states none, `mpp` fills in.
    """
    from segmitos.io.geometry import same_scale
    from segmitos.io.points.read import read_annotations

    if override:
        return read_annotations(source, mpp, **how)
    try:
        found = read_annotations(source, **how)
    except ScaleError:
        if mpp is None:
            raise
        # In millimeters, or with positions in um that fit no scale.
        return read_annotations(source, mpp, **how)
    if mpp is None or found.mpp is None:
        return replace(found, mpp=found.mpp or mpp)
    if not same_scale(found.mpp, mpp):
        print_warnings(
            [
                f"{source} says {found.mpp:.4g} um/px, {mpp:.4g} was given (--mpp, or by the image "
                f"of --slide); {found.mpp:.4g} is used (to insist on the other: --mpp and "
                "--override-mpp)"
            ]
        )
    return found


def _frame(
    slide: Path, mpp: float | None, override: bool
) -> tuple[tuple[int, int], tuple[float, float], float | None]:
    """Return size, begin of QuPath's frame and scale of the image that the points belong to."""
    from segmitos.io.slide import Slide

    with Slide.open(slide, mpp, override) as opened:
        print_warnings(opened.warnings)
        left, top = opened.bounds[:2]
        return (opened.width, opened.height), (float(left), float(top)), opened.mpp


def _classes(given: Sequence[str]) -> Classes:
    """Return the class names that `NAME=LABEL` adds. Raises UsageError."""
    from segmitos.io.points.classes import LABELS, Classes

    more: dict[str, Label | Literal["ignore"]] = {}
    known: dict[str, Label | Literal["ignore"]] = {label: label for label in LABELS}
    known["ignore"] = "ignore"
    for one in given:
        name, _, label = one.rpartition("=")
        if not name.strip() or label not in known:
            raise UsageError(f"--class {one}: write NAME=LABEL with one of {', '.join(known)}")
        more[name] = known[label]
    return Classes(more)


def _described(found: Annotations, lost: dict[str, int]) -> str:
    """Return how many positions were written, by label where not all are mitoses."""
    counts = found.counts()
    counts["unsure"] -= lost.get("unsure", 0)
    total = sum(counts.values())
    positions = in_words(total, "position")
    if counts["mitosis"] == total:
        return positions
    return f"{positions} ({', '.join(f'{n} {label}' for label, n in counts.items() if n)})"
