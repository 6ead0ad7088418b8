"""How a data set looks: every label as a crop, in pages, and the reviewed regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError
from segmitos.io.datasets import Case
from segmitos.io.files import image_bytes
from segmitos.io.points.classes import Label
from segmitos.io.points.regions import Polygon
from segmitos.io.slide import Slide
from segmitos.io.tables import table_text, text_cell
from segmitos.report.crops import SheetCrop, crop_sheet, read_crop

_TABLE = ("number", "page", "case", "slide", "label", "x_px", "y_px")
_COLUMNS, _ROWS = 10, 10
_CROP_PX = 96
_CROP_UM = 24.0
# Half the side of a mass's crop, in radii of the mass.
_MASS_REACH = 2.0
_COLORS: dict[Label, str] = {"mitosis": "#00a040", "non-mitosis": "#d02020", "unsure": "#e0a000"}
_REGION_PX, _REGION_COLUMNS, _REGION_ROWS = 320, 3, 3
_INCLUDED, _EXCLUDED = "#2060e0", "#d02020"


@dataclass(frozen=True)
class LabeledPoint:
    """One label of a data set: its number in the table and on the pages, from 1."""

    number: int
    case: Case
    label: Label
    xy: NDArray[np.float64]
    radius_px: float | None = None


def labeled_points(cases: Sequence[Case]) -> list[LabeledPoint]:
    """Return every label of the cases whose image is there, numbered, case by case.

    Raises:
        DataError: where there is none.
    """
    points: list[LabeledPoint] = []
    for case in cases:
        if not case.image.exists():
            continue
        groups: tuple[tuple[Label, NDArray[np.float64]], ...] = (
            ("mitosis", case.mitoses_xy),
            ("non-mitosis", case.hard_negatives_xy),
            ("unsure", case.unsure_xy),
        )
        for label, places in groups:
            for index, xy in enumerate(places):
                own = None if label != "mitosis" else case.radii_px
                radius = None if own is None else float(own[index])
                points.append(LabeledPoint(len(points) + 1, case, label, xy, radius))
    if not points:
        raise DataError("there is no labeled point with an image to show")
    return points


def is_label_table(path: Path) -> bool:
    """Tell whether a file is a table that `label_table` made."""
    try:
        with path.open("rb") as stream:
            return stream.readline().strip() == ",".join(_TABLE).encode()
    except OSError:
        return False


def label_table(points: Sequence[LabeledPoint]) -> str:
    """Return the table of labels as CSV: number, page, case, slide, label, x_px, y_px."""
    rows = []
    for point in points:
        page = (point.number - 1) // (_COLUMNS * _ROWS) + 1
        names = [text_cell(point.case.name), text_cell(point.case.slide)]
        about = [point.number, page, *names, point.label]
        rows.append([*about, *point.xy.tolist()])
    return table_text(_TABLE, rows)


def contact_sheets(points: Sequence[LabeledPoint]) -> Iterator[bytes]:
    """Yield PNG pages of labeled crops: mitoses green, hard negatives red, unsure cells orange.

    Crops are 24 um wide (96 px where the scale is unknown), masses circled and as wide as they
    need. Below each its number in the table and the image's name; a crop whose image cannot be
    read is gray.
    """
    most = _COLUMNS * _ROWS
    for start in range(0, len(points), most):
        crops = _crops(points[start : start + most])
        yield image_bytes(crop_sheet(crops, _CROP_PX, _COLUMNS), drawn=True)


def _crops(points: Sequence[LabeledPoint]) -> list[SheetCrop]:
    """Return the crops of one page, opening each image once."""
    crops: list[SheetCrop] = []
    slide: Slide | None = None
    opened: Case | None = None
    for point in points:
        if point.case is not opened:
            if slide is not None:
                slide.close()
            opened, slide = point.case, _open(point.case)
        crops.append(_sheet_crop(point, slide))
    if slide is not None:
        slide.close()
    return crops


def _open(case: Case) -> Slide | None:
    try:
        # With 1 um/px a crop is cut in level-0 pixels, whatever the file's scale.
        return Slide.open(case.image, mpp=1.0, override_mpp=True)
    except InputError:
        return None


def _sheet_crop(point: LabeledPoint, slide: Slide | None) -> SheetCrop:
    side_px = 2 * _reach_px(point)
    pixels = None
    if slide is not None:
        try:
            pixels = read_crop(slide, float(point.xy[0]), float(point.xy[1]), side_px, _CROP_PX)
        except InputError:
            pixels = None
    radius = None if point.radius_px is None else point.radius_px / side_px * _CROP_PX
    name = point.case.name.removesuffix(point.case.image.suffix).rpartition("/")[2]
    caption = f"{point.number} {name}"
    return SheetCrop(pixels, caption, _COLORS[point.label], cross=radius is None, radius_px=radius)


def _reach_px(point: LabeledPoint) -> float:
    """Half of a crop's side in level-0 pixels."""
    if point.radius_px is not None:
        return _MASS_REACH * point.radius_px
    if point.case.mpp is None:
        return _CROP_PX / 2
    return _CROP_UM / 2 / point.case.mpp


def region_sheets(cases: Sequence[Case]) -> Iterator[bytes]:
    """Yield PNG pages of the cases with reviewed regions: outlines blue, what is cut out red.

    Below each the image's name and the reviewed area.
    """
    shown = [case for case in cases if case.regions is not None and case.image.exists()]
    most = _REGION_COLUMNS * _REGION_ROWS
    for start in range(0, len(shown), most):
        crops = [_region_crop(case) for case in shown[start : start + most]]
        yield image_bytes(crop_sheet(crops, _REGION_PX, _REGION_COLUMNS, gap_px=8), drawn=True)


def _region_crop(case: Case) -> SheetCrop:
    from PIL import Image, ImageDraw

    assert case.regions is not None
    try:
        with Slide.open(case.image, mpp=1.0, override_mpp=True) as slide:
            size = slide.width, slide.height
            overview = slide.thumbnail(_REGION_PX)
    except InputError:
        return SheetCrop(None, case.name)
    scale = overview.shape[1] / size[0]
    picture = Image.new("RGB", (_REGION_PX, _REGION_PX), "white")
    picture.paste(Image.fromarray(overview), (0, 0))
    draw = ImageDraw.Draw(picture)

    def outline(polygons: Sequence[Polygon], color: str) -> None:
        for ring in (ring for polygon in polygons for ring in polygon):
            corners = [(x * scale, y * scale) for x, y in [*ring.tolist(), ring[0].tolist()]]
            draw.line(corners, fill=color, width=3)

    outline(case.regions.included or (), _INCLUDED)
    outline(case.regions.excluded, _EXCLUDED)
    for x, y in (case.mitoses_xy * scale).tolist():
        draw.circle((x, y), 3, fill=_COLORS["mitosis"])
    area = case.regions.area_px2(*size)
    shown = f"{area:.0f} px2" if case.mpp is None else f"{area * case.mpp**2 / 1e6:.3f} mm2"
    return SheetCrop(np.asarray(picture), f"{case.name}: {shown} reviewed")
