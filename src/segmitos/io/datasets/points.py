"""Folders of images with a file of annotated points each.

**points** has one CSV or GeoJSON an image: `field.png` beside `field.csv` or `field.geojson` (or
`field.png.csv`); or the tables in a folder `points/`. A CSV has a header with `x,y` or `x_px,y_px`
and may have `label` (mitosis, non-mitosis, unsure), `confidence` and `laboratory`. Where not all of
an image was looked at, the polygons of `field.regions.geojson` (or of `field.geojson` itself) are
the reviewed regions. An image has no mitosis only if its table is there and empty; without one it
is an error, since nobody may have looked. Frames of one slide share what stands before the last
`_`, or lie in a folder named after it. The scale is the image's own, or what stands in a file
`mpp.txt` in its folder or one above, else what its table states; `laboratory.txt` names the
laboratory in the same way, and `patient.txt` the patient, without which each slide is another
one's.

**qupath** is what a pathologist drew in QuPath: images with the GeoJSON of File > Export objects.

The export of `slide.svs` is `slide.geojson` or `slide.svs.geojson`, beside the image or in a folder
`annotations` next to it. Every point has a class: `Mitotic figure`, `Hard negative` for look-
alikes, `Unsure` for neither; outlines of these classes stand for their centroid. Outlines without a
class, or of class `Region*`, are the reviewed regions: every mitosis in them is marked, and nothing
outside is used. `Ignore*`, `Exclude`, `Necrosis` and `Artifact` are cut out of them, or of all the
image. `Hotspot`, `Tumor`, `Stroma` and `Tissue` are passed over; another class is refused by name,
since nobody can tell what it means. Positions are in QuPath's frame, which begins at the bounds of
the scanned area.

An export without objects is an empty collection, and says that there is no mitosis.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from segmitos.errors import DataError, ScaleError, SegMitosError
from segmitos.io.datasets.case import Case
from segmitos.io.datasets.table import check_inside, image_header, require_folder
from segmitos.io.geometry import check_mpp, same_scale
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.geojson import Polygons
from segmitos.io.points.read import read_annotations
from segmitos.io.points.read_regions import read_regions
from segmitos.io.problems import Problems, collected
from segmitos.io.slide import find_images
from segmitos.io.slide.refused import UNREAD_SUFFIXES
from segmitos.io.text import parse_mpp, read_text


def points(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read a folder of images and point tables.

    Raises:
        DataError: for an image without a table, a table that is off, a point outside its image.
        ScaleError: for an `mpp.txt` that is no scale.
    """
    require_folder(path, "points")
    return _annotated_images(path, "points", (".csv", ".geojson"), problems=problems)


def qupath(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read a folder of images and their QuPath exports.

    Raises:
        DataError: for a folder without any export, an image without one, an object that cannot be
            a mitosis, or a point outside its image.
    """
    require_folder(path, "qupath")
    place = "annotations", (".geojson",)
    if not any(_tables_of(image, *place) for image in find_images([path])):
        raise DataError(f"{path} holds no QuPath export (IMAGE.geojson beside IMAGE)")
    return _annotated_images(path, *place, "centroid", problems)


def _annotated_images(
    path: Path,
    folder: str,
    suffixes: Sequence[str],
    polygons: Polygons = "refuse",
    problems: Problems | None = None,
) -> list[Case]:
    """Read a folder of images, each with a file of points of its name.

    Args:
        path: of the folder.
        folder: where the files may lie, next to the image.
        suffixes: of the files.
        polygons: as for `read_annotations`.
        problems: as for every reader.

    Raises:
        DataError: for an image without a file or with two, a file without an image, an annotated
            image of a kind that is not read, and what `read_annotations` raises.
    """
    cases = []
    images = find_images([path])
    for image in images:
        with collected(problems):
            tables = _tables_of(image, folder, suffixes)
            if not tables:
                raise DataError(
                    f"{image} has no annotations: {image.with_suffix('.csv').name} or "
                    f"{image.with_suffix('.geojson').name} is missing (an empty table means none)"
                )
            if len(tables) > 1:
                raise DataError(
                    f"{image} has two tables, {tables[0].name} and {tables[1]}; keep one of them"
                )
            cases.append(_case(image, tables[0], path, polygons))
    used = {table for image in images for table in _tables_of(image, folder, suffixes)}
    unread = [
        (image, tables)
        for image in sorted(path.rglob("*"))
        if image.suffix.lower() in UNREAD_SUFFIXES
        and (tables := _tables_of(image, folder, suffixes))
    ]
    for image, tables in unread:
        with collected(problems):
            if not used.intersection(tables):
                raise DataError(f"{image}: {image.suffix} is not read; convert it to PNG or TIFF")
        used.update(tables)
    for orphan in _orphans(images, used, folder, suffixes, polygons):
        name = orphan.stem if Path(orphan.stem).suffix else f"{orphan.stem}.png or the like"
        with collected(problems):
            raise DataError(f"{orphan} is of no image: {name} is missing")
    return cases


def _case(image: Path, table: Path, root: Path, polygons: Polygons) -> Case:
    size, own_mpp, offset = image_header(image)
    given = _written_mpp(image.parent, root)
    found = read_annotations(table, qupath_offset_px=offset, polygons=polygons)
    file = regions_file(image)
    regions = found.regions if file is None else read_regions(file).moved(*offset)
    check_inside(found.xy, size, table)
    _check_scale(found, (own_mpp, given), table, image)
    if regions is not None and size is not None and (problem := regions.misplaced(*size, offset)):
        raise DataError(f"{file or table}: {problem} of {size[0]} x {size[1]} px")
    parent = image.parent.relative_to(root)
    slide = parent.as_posix() if parent.parts else image.stem.rpartition("_")[0] or image.stem
    return Case(
        name=image.relative_to(root).with_suffix("").as_posix(),
        image=image,
        mitoses_xy=found.of("mitosis"),
        hard_negatives_xy=found.of("non-mitosis"),
        unsure_xy=found.of("unsure"),
        mpp=next((mpp for mpp in (given, own_mpp, found.mpp) if mpp is not None), None),
        slide=slide,
        patient=_written(image.parent, root, "patient.txt")[1] or slide,
        # The name of the folder, for `.` and `..` too.
        dataset=os.path.basename(os.path.abspath(root)),
        size_px=size,
        regions=regions,
        confidence=found.mitosis_confidence(),
        laboratory=found.laboratory or _written(image.parent, root, "laboratory.txt")[1],
    )


def _check_scale(
    found: Annotations, known: Sequence[float | None], table: Path, image: Path
) -> None:
    """Refuse a table that states another scale than its image: its pixels are of another scan.

    Raises:
        ScaleError: naming both.
    """
    scales = [mpp for mpp in known if mpp is not None]
    if found.mpp is None or not scales or any(same_scale(found.mpp, mpp) for mpp in scales):
        return
    raise ScaleError(
        f"{table} says {found.mpp:.4g} um/px, its image {image.name} {scales[0]:.4g}: are its "
        "pixels of this image? if so, remove the scale from the table (x_um, y_um), or write it in "
        "mpp.txt where it is right"
    )


def regions_file(image: Path) -> Path | None:
    """Return `IMAGE.regions.geojson` beside an image, None where there is none."""
    folders = (image.parent, image.parent / "points")
    files = [folder / f"{image.stem}.regions.geojson" for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _written_mpp(folder: Path, root: Path) -> float | None:
    """Read the nearest `mpp.txt` from a folder up to the root, None without one."""
    note, text = _written(folder, root, "mpp.txt")
    if note is None:
        return None
    value = parse_mpp(text)
    if value is None:
        raise ScaleError(f"{note}: {text[:40]!r} is not a scale in um/px; write a number, say 0.25")
    return check_mpp(value, str(note))


def _written(folder: Path, root: Path, name: str) -> tuple[Path | None, str]:
    """Read the nearest file of a name from a folder up to the root: its path and its text."""
    for place in (folder, *folder.parents):
        note = place / name
        if note.is_file():
            return note, read_text(note).strip()
        if place == root:
            break
    return None, ""


def _tables_of(image: Path, folder: str, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of points of an image's name; more than one may say different things."""
    places, names = (image.parent, image.parent / folder), (image.stem, image.name)
    tables = [place / (name + end) for place in places for name in names for end in suffixes]
    return [table for table in tables if table.is_file()]


def _orphans(
    images: Sequence[Path],
    used: Container[Path],
    folder: str,
    suffixes: Sequence[str],
    polygons: Polygons,
) -> Iterator[Path]:
    """Yield files of points that lie beside images, or in `folder` there, and belong to none."""
    beside = {image.parent for image in images}
    for place in sorted(beside | {parent / folder for parent in beside}):
        for table in sorted(place.glob("*")):
            if table.suffix not in suffixes or table in used or table.name.startswith("."):
                continue
            try:
                is_table = len(read_annotations(table, polygons=polygons)) > 0
            except SegMitosError:
                # Some other table, of which nothing is known.
                continue
            if is_table:
                yield table
