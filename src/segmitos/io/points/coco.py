"""COCO and MIDOG's labels: JSON of images, categories, and a box around each cell."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from segmitos.errors import DataError
from segmitos.io.geometry import LARGEST_PX, check_mpp
from segmitos.io.json_files import checked
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.boxes import Layout, box_layout, centers
from segmitos.io.points.classes import CLASSES, LABELS, Classes, Label, unknown_class
from segmitos.io.points.table_checks import check_no_fractions

BOX_PX = 50.0
"""Side of the boxes, as in MIDOG's labels."""
BOXES_NOTE = "Boxes are [x1, y1, x2, y2]"
"""How the description begins in labels of MIDOG's kind that are written here."""
_CATEGORIES: dict[Label, tuple[int, str]] = {
    "mitosis": (1, "mitotic figure"),
    "non-mitosis": (2, "non-mitotic figure"),
    "unsure": (3, "unsure"),
}
Id = int | str


class Own(msgspec.Struct):
    """What SegMitos's own files add to an image or an annotation."""

    mpp: float | None = None
    x_px: float | None = None
    y_px: float | None = None
    area_um2: float | None = None
    confidence: float | None = None


class Image(msgspec.Struct):
    """One image of the file."""

    id: Id
    file_name: str = ""
    width: float | None = None
    height: float | None = None
    tumor_type: str = ""
    segmitos: Own | None = None


class Category(msgspec.Struct):
    """One class."""

    id: Id
    name: str


class Box(msgspec.Struct):
    """One annotation; `labels` are the votes of MIDOG++."""

    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    area: float | None = None
    score: float | None = None
    labels: Any = None
    iscrowd: Any = None
    segmitos: Own | None = None


class CocoFile(msgspec.Struct):
    """A whole file."""

    images: list[Image]
    annotations: list[Box]
    categories: list[Category]
    info: Any = None


def is_coco(content: Any) -> bool:
    """Tell whether parsed JSON is COCO-like."""
    return isinstance(content, dict) and {"images", "annotations"} <= set(content)


def parse_coco(path: Path, content: Any) -> CocoFile:
    """Check parsed JSON as a COCO-like file.

    Raises:
        DataError: for what is missing or of another kind, and for ids that name nothing or two.
    """
    if not is_coco(content) or "categories" not in content:
        raise DataError(f"{path} is not COCO: expected arrays images, annotations, categories")
    file = checked(content, CocoFile, str(path))
    for what, items in (("images", file.images), ("categories", file.categories)):
        twice = [number for number, count in Counter(i.id for i in items).items() if count > 1]
        if twice:
            raise DataError(f"{path}: two {what} have the id {twice[0]!r:.60}")
    for image in file.images:
        for side in (image.width, image.height):
            if side is not None and not 0 < side <= LARGEST_PX:
                raise DataError(f"{path}: image {image.id!r:.60} is {side} px wide or high")
    images = {image.id for image in file.images}
    categories = {category.id for category in file.categories}
    for number, box in enumerate(file.annotations, start=1):
        where = f"{path}, annotation {number}"
        if box.image_id not in images:
            raise DataError(f"{where} names image {box.image_id!r:.60}, which is unknown")
        if box.category_id not in categories:
            raise DataError(f"{where} names category {box.category_id!r:.60}, which is unknown")
        if not all(abs(value) <= LARGEST_PX for value in box.bbox):
            raise DataError(f"{where}: bbox {list(box.bbox)} is no place in pixels")
        if box.score is not None and not math.isfinite(box.score):
            raise DataError(f"{where}: score {box.score} is not finite")
    return file


def layout_of(path: Path, file: CocoFile, expected: Layout | None = None) -> Layout:
    """Tell what the boxes of a file are; ours are `[x, y, width, height]`. Raises DataError."""
    if any(image.segmitos is not None for image in file.images):
        return "sizes"
    sizes = {image.id: (image.width or math.nan, image.height or math.nan) for image in file.images}
    return box_layout(
        np.array([box.bbox for box in file.annotations], float).reshape(-1, 4),
        np.array([sizes[box.image_id] for box in file.annotations], float).reshape(-1, 2),
        np.array([math.nan if b.area is None else b.area for b in file.annotations], float),
        str(path),
        expected,
    )


def coco_annotations(
    path: Path,
    file: CocoFile,
    layout: Layout,
    image: Image,
    mpp: float | None = None,
    classes: Classes = CLASSES,
) -> Annotations:
    """Return the points of one image of a file, at the centers of their boxes.

    Args:
        path: for messages.
        file: from `parse_coco`.
        layout: from `layout_of`.
        image: one of its images.
        mpp: of the image; None takes what our own files say.
        classes: the names of mitoses, hard negatives and unsure cells.

    Raises:
        DataError: for a category that is not understood.
    """
    names = {category.id: category.name for category in file.categories}
    labels: list[Label] = []
    rows = []
    left_out: Counter[str] = Counter()
    for number, box in enumerate(file.annotations, start=1):
        if box.image_id != image.id:
            continue
        where, name = f"{path}, annotation {number}", names[box.category_id]
        label = classes.label(name)
        if label is None and not classes.is_ignored(name):
            raise unknown_class(name, where)
        if label is None:
            left_out[name] += 1
            continue
        if box.iscrowd in (1, "1", True):
            raise DataError(
                f"{where}: a box around a crowd (iscrowd 1), whose cells it does not tell apart; "
                "write a box for each cell, or iscrowd 0 where it is one"
            )
        labels.append(label)
        rows.append(_row(box, layout, names, classes))
    own = image.segmitos
    if own is None:
        check_no_fractions(np.array(rows, float).reshape(-1, 5)[:, :2], str(path))
    scale = mpp if mpp is not None or own is None else own.mpp
    return Annotations.from_rows(
        rows,
        labels,
        mpp=None if scale is None else check_mpp(scale, f"{path}: mpp"),
        name=image.file_name,
        left_out=left_out,
    )


def choose_image(path: Path, file: CocoFile, name: str | None) -> Image:
    """Return the image of a name, or the only one. Raises DataError."""
    chosen = [image for image in file.images if name is None or image.file_name == name]
    if len(chosen) == 1:
        return chosen[0]
    if name is None:
        names = ", ".join(image.file_name for image in file.images[:3])
        raise DataError(
            f"{path} holds {len(file.images)} images: name one by its file_name with --image, "
            f"e.g. {names}"
        )
    raise DataError(f"{path} holds {len(chosen)} images named {name!r}, not one")


def _row(
    box: Box, layout: Layout, names: dict[Id, str], classes: Classes
) -> tuple[float, float, float, float, float]:
    x, y = centers(np.array([box.bbox], float), layout)[0].tolist()
    own = box.segmitos or Own()
    # The kept position is exact; a box that was moved since has the last word.
    if (
        own.x_px is not None
        and own.y_px is not None
        and math.dist((own.x_px, own.y_px), (x, y)) < 1e-3
    ):
        x, y = own.x_px, own.y_px
    confidence = own.confidence
    votes = box.labels if isinstance(box.labels, list) else []
    # Members of this name that are no categories are no votes.
    if votes and all(isinstance(vote, int | str) and vote in names for vote in votes):
        votes = [classes.label(names[vote]) == "mitosis" for vote in votes]
        confidence = sum(votes) / len(votes)
    values = (box.score, own.area_um2, confidence)
    score, area, confidence = (math.nan if value is None else value for value in values)
    return x, y, score, area, confidence


def coco_content(
    annotations: Annotations, size_px: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return a COCO object: one image, a box `[x, y, width, height]` around each position.

    Args:
        annotations: of one image.
        size_px: width and height of the image, where known.

    Returns:
        The object. A member `segmitos` of each annotation, and of the image, keeps what COCO has
        no place for (the exact position, the blob's area in um2, confidence, mpp); other readers
        ignore it.
    """
    corners = (annotations.xy - BOX_PX / 2).tolist()
    items: list[dict[str, Any]] = []
    for index, ((x, y), label) in enumerate(
        zip(annotations.xy.tolist(), annotations.labels, strict=True)
    ):
        item: dict[str, Any] = {
            "id": index + 1,
            "image_id": 1,
            "category_id": _CATEGORIES[label][0],
            "bbox": [*corners[index], BOX_PX, BOX_PX],
            "area": BOX_PX * BOX_PX,
            "iscrowd": 0,
            "segmitos": {"x_px": x, "y_px": y},
        }
        for name in ("area_um2", "confidence"):
            value = float(getattr(annotations, name)[index])
            if not math.isnan(value):
                item["segmitos"][name] = value
        score = float(np.asarray(annotations.score)[index])
        items.append(item if math.isnan(score) else item | {"score": score})
    used = [label for label in LABELS if label != "unsure" or label in annotations.labels]
    image = _image(annotations, size_px) | {"segmitos": {"mpp": annotations.mpp}}
    return _content(image, items, [_CATEGORIES[label] for label in used])


def midog_content(
    annotations: Annotations, size_px: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return an object of MIDOG's labels: boxes of 50 px given by their corners.

    Unsure cells, scores, areas, confidence, regions and the scale have no place in it.
    """
    xy, half = annotations.xy, BOX_PX / 2
    boxes = np.concatenate([xy - half, xy + half], axis=1).tolist()
    kept = zip(boxes, annotations.labels, strict=True)
    items = [
        {"bbox": box, "category_id": _CATEGORIES[label][0], "image_id": 1}
        for box, label in kept
        if label != "unsure"
    ]
    for number, item in enumerate(items, start=1):
        item["id"] = number
    content = _content(
        _image(annotations, size_px), items, [(1, "mitotic figure"), (2, "not mitotic figure")]
    )
    return content | {"info": {"description": f"{BOXES_NOTE}, as in MIDOG's labels"}}


def _content(
    image: dict[str, Any], items: list[dict[str, Any]], categories: list[tuple[int, str]]
) -> dict[str, Any]:
    named = [{"id": number, "name": name} for number, name in categories]
    return {"images": [image], "annotations": items, "categories": named}


def _image(annotations: Annotations, size_px: tuple[int, int] | None) -> dict[str, Any]:
    image: dict[str, Any] = {"id": 1, "file_name": annotations.name}
    if size_px is not None:
        image |= {"width": int(size_px[0]), "height": int(size_px[1])}
    return image
