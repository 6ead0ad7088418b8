"""`segmitos convert`: points of one image from one file format to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segmitos.errors import DataError, UsageError

if TYPE_CHECKING:
    from segmitos.io.points.detections import Detections

FORMATS = ("geojson", "csv", "json", "midog", "coco")
_BY_SUFFIX = {".geojson": "geojson", ".csv": "csv", ".json": "json"}


def run_convert(
    source: Path,
    out: Path,
    to: str | None,
    mpp: float | None,
    image: str | None,
    qupath: str,
    polygons: bool,
) -> int:
    """Read `source` by what is in it, write `out` in the format of --to or of its suffix."""
    from segmitos.io.geometry import check_mpp

    if mpp is not None:
        check_mpp(mpp, "--mpp")
    target = to or _BY_SUFFIX.get(out.suffix.lower())
    if target not in FORMATS:
        raise UsageError(
            f"--to {to!r} is not one of {', '.join(FORMATS)}"
            if to
            else f"the format of {out} cannot be told; give --to with one of {', '.join(FORMATS)}"
        )
    if out.resolve() == source.resolve():
        raise UsageError(f"{out} is the input itself; choose another name")
    detections = read_any(source, mpp, image, polygons)
    _write(detections, out, target, qupath)
    noun = "position" if len(detections) == 1 else "positions"
    print(f"{len(detections)} {noun} in {out} ({target})")
    return 0


def read_any(
    source: Path, mpp: float | None = None, image: str | None = None, polygons: bool = False
) -> Detections:
    """Read positions from any format we know; a JSON file is told by its members.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is none of the formats, or damaged.
        ScaleError: if the scale is neither given nor told by the file.
        UsageError: where --image is given for a file of one image.
    """
    from segmitos.errors import ScaleError
    from segmitos.io.json_files import load_json
    from segmitos.io.points.detections import read_csv, read_geojson, read_json
    from segmitos.io.points.exchange import read_coco, read_midog

    suffix = source.suffix.lower()
    if suffix == ".csv":
        return read_csv(source, mpp)
    if suffix not in (".json", ".geojson"):
        raise DataError(f"{source}: positions are read from .csv, .json and .geojson files")
    content = load_json(source)
    members = content if isinstance(content, dict) else {}
    if "images" in members and "annotations" in members:
        return read_coco(source, mpp, image)
    if image is not None:
        raise UsageError(f"{source} is of one image: --image is for COCO files of several")
    if members.get("type") == "Multiple points":
        if mpp is None:
            raise ScaleError(f"{source} is in millimetres: give um per pixel, e.g. --mpp 0.25")
        return read_midog(source, mpp)
    if "format" in members:
        return read_json(source)
    return read_geojson(source, mpp, polygons="centroid" if polygons else "refuse")


def _write(detections: Detections, out: Path, target: str, qupath: str) -> None:
    from segmitos.io.points.detections import write_csv, write_detections_json, write_geojson
    from segmitos.io.points.exchange import write_coco, write_midog

    if target == "geojson":
        write_geojson(out, detections, qupath)
    else:
        writers = {
            "csv": write_csv,
            "json": write_detections_json,
            "midog": write_midog,
            "coco": write_coco,
        }
        writers[target](out, detections)
