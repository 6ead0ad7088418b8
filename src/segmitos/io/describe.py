"""What a data set holds, what looks wrong in it, how it looks; and its conversion to points."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError, ScaleError
from segmitos.io.datasets import Case
from segmitos.io.files import write_bytes, write_text
from segmitos.io.slide import Slide

_DUPLICATE_UM = 2.0
_SHEET_COLUMNS, _SHEET_ROWS, _CROP_PX, _CROP_UM = 10, 8, 96, 24.0


def describe(cases: Sequence[Case]) -> dict[str, Any]:
    """Count what a data set holds: a JSON-able dict."""
    sizes = Counter(f"{c.size_px[0]} x {c.size_px[1]}" for c in cases if c.size_px is not None)
    scales = Counter("unknown" if c.mpp is None else f"{c.mpp:g}" for c in cases)
    per_slide: Counter[str] = Counter()
    for case in cases:
        per_slide[case.slide] += len(case.mitoses_xy)
    return {
        "datasets": ", ".join(sorted({case.dataset for case in cases})),
        "cases": len(cases),
        "slides": len(per_slide),
        "patients": len({case.patient for case in cases}),
        "mitoses": int(sum(len(case.mitoses_xy) for case in cases)),
        "hard_negatives": int(sum(len(case.hard_negatives_xy) for case in cases)),
        "masks": sum(case.mask is not None for case in cases),
        "empty_cases": sum(len(case.mitoses_xy) == 0 for case in cases),
        "mitoses_by_slide": dict(sorted(per_slide.items())),
        "sizes_px": dict(sizes.most_common()),
        "mpp": dict(scales.most_common()),
        "scanners": dict(Counter(case.scanner or "unknown" for case in cases).most_common()),
    }


def find_problems(cases: Sequence[Case]) -> list[str]:
    """List what looks wrong: missing or damaged images, points outside, duplicates, no scale."""
    problems = []
    for case in cases:
        if not case.image.exists():
            problems.append(f"{case.name}: image {case.image} is missing")
        else:
            problems += _image_problems(case)
        if case.mask is not None and not case.mask.exists():
            problems.append(f"{case.name}: mask {case.mask} is missing")
        if case.mpp is None:
            problems.append(f"{case.name}: um per pixel unknown; give --mpp")
        problems += _duplicates(case)
    return problems


def _image_problems(case: Case) -> list[str]:
    try:
        with Slide.open(case.image, mpp=case.mpp) as slide:
            slide.thumbnail(256)
            width, height = slide.width, slide.height
    except InputError as error:
        return [f"{case.name}: {error}"]
    problems = []
    for kind, points in (("mitosis", case.mitoses_xy), ("hard negative", case.hard_negatives_xy)):
        for x, y in points:
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                problems.append(
                    f"{case.name}: {kind} at ({x:g}, {y:g}) is outside {width} x {height} px"
                )
    return problems


def _duplicates(case: Case) -> list[str]:
    points = case.mitoses_xy
    if len(points) < 2 or case.mpp is None:
        return []
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(_DUPLICATE_UM / case.mpp, output_type="ndarray")
    return [
        f"{case.name}: mitoses at ({points[a][0]:g}, {points[a][1]:g}) and "
        f"({points[b][0]:g}, {points[b][1]:g}) are within {_DUPLICATE_UM:g} um"
        for a, b in pairs
    ]


def contact_sheet(cases: Sequence[Case]) -> bytes:
    """Return a PNG of labelled crops, 24 um wide: mitoses in green, hard negatives in red.

    Taken evenly over the data set, so that every slide has its chance to be seen.

    Raises:
        DataError: where there is nothing to show.
    """
    from PIL import Image, ImageDraw

    places = _places(cases)
    if not places:
        raise DataError("there is no labelled point with a readable image to show")
    rows = -(-len(places) // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (_SHEET_COLUMNS * _CROP_PX, rows * _CROP_PX), "white")
    for number, (case, xy, colour) in enumerate(places):
        crop = Image.fromarray(_crop(case, xy))
        draw = ImageDraw.Draw(crop)
        draw.rectangle((0, 0, _CROP_PX - 1, _CROP_PX - 1), outline=colour, width=2)
        middle = (_CROP_PX - 1) / 2
        for start, end in ((-24, -16), (16, 24)):
            draw.line([(middle + start, middle), (middle + end, middle)], fill=colour)
            draw.line([(middle, middle + start), (middle, middle + end)], fill=colour)
        left, top = number % _SHEET_COLUMNS * _CROP_PX, number // _SHEET_COLUMNS * _CROP_PX
        sheet.paste(crop, (left, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _places(cases: Sequence[Case]) -> list[tuple[Case, NDArray[np.float64], str]]:
    every = [
        (case, xy, colour)
        for case in cases
        if case.image.exists() and case.mpp is not None
        for points, colour in ((case.mitoses_xy, "#00a040"), (case.hard_negatives_xy, "#d02020"))
        for xy in points
    ]
    most = _SHEET_COLUMNS * _SHEET_ROWS
    if not every:
        return []
    chosen = np.unique(np.linspace(0, len(every) - 1, most).round().astype(int))
    return [every[int(index)] for index in chosen]


def _crop(case: Case, xy: NDArray[np.float64]) -> NDArray[np.uint8]:
    with Slide.open(case.image, mpp=case.mpp) as slide:
        reach = _CROP_UM / 2 / slide.require_mpp()
        corner = xy + 0.5 - reach
        return slide.read(
            float(corner[0]), float(corner[1]), _CROP_PX, _CROP_PX, mpp=_CROP_UM / _CROP_PX
        )


def convert_dataset(cases: Sequence[Case], out: Path) -> int:
    """Write cases as a `points` folder: each image beside a CSV of its points.

    Images are copied as they are; a slide's images lie in a folder named after it. A scale that
    the images do not hold themselves is written to `mpp.txt` for the reader to give as --mpp.

    Returns:
        The number of images written.

    Raises:
        DataError: for an image that is missing; OutputError: where `out` cannot be written.
        ScaleError: where cases differ in scale, since a folder has one --mpp.
    """
    scales = {case.mpp for case in cases}
    if len(scales) > 1:
        raise ScaleError(
            f"the cases have {len(scales)} scales ({', '.join(map(str, list(scales)[:4]))} um/px); "
            "convert them apart with --cases"
        )
    for case in cases:
        try:
            content = case.image.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {case.image}: {error.strerror}") from error
        stem = case.name.rpartition("/")[2].removesuffix(case.image.suffix)
        folder = out / case.slide.replace("/", "_")
        write_bytes(folder / f"{stem}{case.image.suffix}", content)
        lines = ["x_px,y_px,label"]
        kinds = (("mitosis", case.mitoses_xy), ("non-mitosis", case.hard_negatives_xy))
        for label, points in kinds:
            lines += [f"{x!r},{y!r},{label}" for x, y in points.tolist()]
        write_text(folder / f"{stem}.csv", "\n".join(lines) + "\n")
    scale = scales.pop()
    write_text(out / "mpp.txt", f"{'unknown' if scale is None else scale}\n")
    return len(cases)
