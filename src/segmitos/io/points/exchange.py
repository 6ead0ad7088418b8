"""Detections in the formats of challenges and of object detection: Grand Challenge and COCO."""

from __future__ import annotations

import json
import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import DataError, ScaleError, UsageError
from segmitos.io.files import write_json, write_text
from segmitos.io.geometry import check_mpp
from segmitos.io.json_files import load_json
from segmitos.io.points.classes import HARD_NEGATIVE_CLASSES, MITOSIS_CLASSES
from segmitos.io.points.detections import Detections

MITOSIS_NAME = "mitotic figure"
REJECTED_NAME = "non-mitotic figure"
BOX_PX = 50.0
# Millimetres carry more digits than a double needs, so that pixels come back to the last bit.
_DIGITS = 20


def to_midog(detections: Detections, rejected: Detections | None = None) -> str:
    """Return Grand Challenge JSON text (`Multiple points`), as MIDOG's evaluation takes it.

    Args:
        detections: named `mitotic figure`.
        rejected: candidates below the threshold, named `non-mitotic figure`; MIDOG uses them for
            curves over the threshold.

    Returns:
        The text. Positions are in mm, with 20 digits: `read_midog` gets the same pixels back to
        the last bit. The format has no room for areas.
    """
    lines: list[str] = []
    for name, group in ((MITOSIS_NAME, detections), (REJECTED_NAME, rejected)):
        if group is None:
            continue
        for x, y, score in zip(group.x_px, group.y_px, group.score, strict=True):
            place = f"{_mm(float(x), group.mpp)}, {_mm(float(y), group.mpp)}, 0"
            probability = "" if math.isnan(score) else f', "probability": {float(score)!r}'
            lines.append(f'    {{"name": "{name}", "point": [{place}]{probability}}}')
    points = "[\n" + ",\n".join(lines) + "\n  ]" if lines else "[]"
    return (
        f'{{\n  "name": {json.dumps(detections.name or "mitotic figures", ensure_ascii=False)},\n'
        f'  "type": "Multiple points",\n  "points": {points},\n'
        '  "version": {"major": 1, "minor": 0}\n}\n'
    )


def write_midog(path: Path, detections: Detections, rejected: Detections | None = None) -> None:
    """Write `to_midog`. Raises OutputError."""
    write_text(path, to_midog(detections, rejected))


def read_midog(path: Path | str, mpp: float, rejected: bool = False) -> Detections:
    """Read the mitotic figures of a Grand Challenge file, or with `rejected` the other points.

    A point without a name is a mitotic figure. Areas are unknown (nan).

    Args:
        path: of the JSON file.
        mpp: of the image; the file is in millimetres.
        rejected: return the points named `non-mitotic figure` instead.

    Returns:
        Detections named after the file's `name`, in its order.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not of type `Multiple points`, or a point is not one, by number.
        ScaleError: if `mpp` is impossible.
    """
    path = Path(path)
    mpp = check_mpp(mpp, str(path))
    content = load_json(path, decimals=True)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list) or content.get("type") != "Multiple points":
        raise DataError(f"{path} is not a Grand Challenge file of type 'Multiple points'")
    rows: list[tuple[float, float, float]] = []
    for number, point in enumerate(points, start=1):
        where = f"{path}, point {number}"
        if not isinstance(point, dict):
            raise DataError(f"{where} is not an object with 'point'")
        name = str(point.get("name") or MITOSIS_NAME).strip().lower().replace("_", " ")
        if name not in (MITOSIS_NAME, REJECTED_NAME):
            raise DataError(
                f"{where}: name {name!r}; expected {MITOSIS_NAME!r} or {REJECTED_NAME!r}"
            )
        place = point.get("point")
        if not isinstance(place, list) or len(place) not in (2, 3):
            raise DataError(f"{where}: {place!r} is not [x_mm, y_mm, 0]")
        x, y = (_px(value, mpp, where) for value in place[:2])
        if (name == REJECTED_NAME) == rejected:
            rows.append((x, y, _number(point.get("probability", math.nan), "probability", where)))
    x_px, y_px, score = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    label = content.get("name")
    unknown = np.full(len(rows), math.nan)
    return Detections(
        x_px, y_px, unknown, score, mpp, label if isinstance(label, str) else path.stem
    )


def to_coco(
    detections: Detections, size_px: tuple[int, int] | None = None, box_px: float = BOX_PX
) -> dict[str, Any]:
    """Return a COCO object: one image, a box `[x, y, width, height]` around each position.

    Args:
        detections: of one image.
        size_px: width and height of the image, where known.
        box_px: side of the boxes; 50 px is what MIDOG's labels have.

    Returns:
        The object. A member `segmitos` of each annotation, and of the image, keeps what COCO has
        no place for (the exact position, the blob's area in um2, mpp); other readers ignore it.
    """
    if not (math.isfinite(box_px) and box_px > 0):
        raise UsageError(f"box of {box_px} px: must be above 0")
    image: dict[str, Any] = {
        "id": 1,
        "file_name": detections.name,
        "segmitos": {"mpp": detections.mpp},
    }
    if size_px is not None:
        image |= {"width": int(size_px[0]), "height": int(size_px[1])}
    annotations = []
    rows = zip(
        detections.x_px.tolist(),
        detections.y_px.tolist(),
        detections.area_um2.tolist(),
        detections.score.tolist(),
        strict=True,
    )
    for number, (x, y, area, score) in enumerate(rows, start=1):
        item: dict[str, Any] = {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "bbox": [x - box_px / 2, y - box_px / 2, box_px, box_px],
            "area": box_px * box_px,
            "iscrowd": 0,
            "segmitos": {"x_px": x, "y_px": y},
        }
        if not math.isnan(area):
            item["segmitos"]["area_um2"] = area
        if not math.isnan(score):
            item["score"] = score
        annotations.append(item)
    return {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": 1, "name": MITOSIS_NAME}, {"id": 2, "name": REJECTED_NAME}],
    }


def write_coco(
    path: Path,
    detections: Detections,
    size_px: tuple[int, int] | None = None,
    box_px: float = BOX_PX,
) -> None:
    """Write `to_coco`. Raises OutputError."""
    write_json(path, to_coco(detections, size_px, box_px))


def read_coco(path: Path | str, mpp: float | None = None, image: str | None = None) -> Detections:
    """Read the mitotic figures of one image from a COCO file, at the centers of their boxes.

    Boxes are `[x, y, width, height]`. (MIDOG's own label files hold corners instead: they are a
    data set, `midog:PATH`.)

    Args:
        path: of the JSON file.
        mpp: of the image, unless the file is ours.
        image: the `file_name` to read, needed where there are several images.

    Returns:
        Detections of that image, in the file's order.

    Raises:
        InputError: if the file cannot be read.
        DataError: for what is not COCO, a missing image, or no category of mitoses.
        ScaleError: if the scale is neither given nor in the file.
    """
    path = Path(path)
    content = load_json(path)
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list)
        and all(isinstance(item, dict) for item in content[part])
        for part in parts
    ):
        raise DataError(f"{path} is not COCO: expected arrays {', '.join(parts)}")
    about = _choose_image(content["images"], image, path)
    category = _mitosis_category(content["categories"], path)
    inside = about.get("segmitos")
    scale = mpp if mpp is not None else inside.get("mpp") if isinstance(inside, dict) else None
    if scale is None:
        raise ScaleError(f"{path} does not say its scale: give um per pixel, e.g. --mpp 0.25")
    rows = []
    for number, item in enumerate(content["annotations"], start=1):
        if item.get("image_id") == about.get("id") and item.get("category_id") == category:
            rows.append(_coco_row(item, f"{path}, annotation {number}"))
    x, y, area, score = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Detections(x, y, area, score, scale, str(about.get("file_name", "")))


def _choose_image(images: list[dict[str, Any]], name: str | None, path: Path) -> dict[str, Any]:
    chosen = [item for item in images if name is None or item.get("file_name") == name]
    if len(chosen) == 1:
        return chosen[0]
    if name is None:
        raise DataError(f"{path} holds {len(images)} images: name one by its file_name")
    raise DataError(f"{path} holds {len(chosen)} images named {name!r}, not one")


def _mitosis_category(categories: list[dict[str, Any]], path: Path) -> Any:
    names = {str(item.get("name", "")).strip().lower(): item.get("id") for item in categories}
    for name, number in names.items():
        if name.replace("-", " ").replace("_", " ") in MITOSIS_CLASSES - HARD_NEGATIVE_CLASSES:
            return number
    raise DataError(
        f"{path}: no category is called {MITOSIS_NAME!r}, only {', '.join(names) or 'none'}"
    )


def _coco_row(item: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"{where}: bbox {box!r} is not [x, y, width, height]")
    left, top, width, height = (_number(value, "bbox", where) for value in box)
    if width < 0 or height < 0:
        raise DataError(f"{where}: bbox {box!r} has a negative size")
    x, y = left + width / 2, top + height / 2
    ours = item.get("segmitos")
    ours = ours if isinstance(ours, dict) else {}
    area = _number(ours.get("area_um2", math.nan), "area_um2", where)
    exact = [ours.get("x_px"), ours.get("y_px")]
    # The kept position is exact; a box that was moved since has the last word.
    if all(isinstance(value, int | float) for value in exact) and math.dist(exact, (x, y)) < 1e-3:  # type: ignore[arg-type]
        x, y = float(exact[0]), float(exact[1])  # type: ignore[arg-type]
    return x, y, area, _number(item.get("score", math.nan), "score", where)


def _mm(px: float, mpp: float) -> str:
    with localcontext() as context:
        context.prec = _DIGITS
        return f"{Decimal(px) * Decimal(mpp) / 1000:f}"


def _px(mm: Any, mpp: float, where: str) -> float:
    _number(mm, "point", where)
    with localcontext() as context:
        context.prec = 2 * _DIGITS
        return float(Decimal(mm) * 1000 / Decimal(mpp))


def _number(value: Any, what: str, where: str) -> float:
    missing = isinstance(value, float) and math.isnan(value) and what not in ("point", "bbox")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise DataError(f"{where}: {what} {value!r} is not a number")
    if not math.isfinite(value) and not missing:
        raise DataError(f"{where}: {what} {value!r} is not finite")
    return float(value)
