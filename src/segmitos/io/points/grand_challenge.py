"""Grand Challenge points, as MIDOG's evaluation takes them: positions in millimeters."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from segmitos.errors import DataError
from segmitos.io.geometry import LARGEST_PX, check_mpp
from segmitos.io.json_files import checked
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import CLASSES, Classes, Label

POINTS_TYPE = "Multiple points"
_NAMES: dict[Label, str] = {"mitosis": "mitotic figure", "non-mitosis": "non-mitotic figure"}
# Millimeters carry more digits than a double needs, so that pixels come back bit-identical.
_DIGITS = 20
# The largest slides, of whole mounts, are 200 mm long, with 0.1 um a pixel.
_MOST_PX = 2_000_000
_Number = Decimal | int | float


class _Point(msgspec.Struct):
    point: tuple[_Number, ...]
    name: str | None = None
    probability: _Number | None = None


class _Points(msgspec.Struct):
    points: list[_Point]
    name: Any = None


def grand_challenge_text(annotations: Annotations) -> str:
    """Return Grand Challenge JSON text of type `Multiple points`.

    Mitoses are named `mitotic figure`; hard negatives, or candidates below the threshold, are
    `non-mitotic figure`, which MIDOG uses for curves over the threshold. The format has no room for
    unsure cells, areas, confidence and regions.

    Args:
        annotations: of known scale.

    Returns:
        The text. Positions are in mm, with 20 digits: what is read back is bit-identical.

    Raises:
        DataError: for a score that is no probability.
    """
    mpp = check_mpp(annotations.mpp or math.nan, annotations.name or "annotations")
    lines: list[str] = []
    scores = np.asarray(annotations.score).tolist()
    strange = next((score for score in scores if score < 0 or score > 1), None)
    if strange is not None:
        raise DataError(
            f"{annotations.name or 'annotations'}: score {strange:g} is no probability from 0 to "
            "1, as this format has it; bring the scores to 0 to 1"
        )
    for wanted, name in _NAMES.items():
        for (x, y), label, score in zip(
            annotations.xy.tolist(), annotations.labels, scores, strict=True
        ):
            if label == wanted:
                place = f"{_mm(x, mpp)}, {_mm(y, mpp)}, 0"
                probability = "" if math.isnan(score) else f', "probability": {score!r}'
                lines.append(f'    {{"name": "{name}", "point": [{place}]{probability}}}')
    points = "[\n" + ",\n".join(lines) + "\n  ]" if lines else "[]"
    return (
        f'{{\n  "name": {json.dumps(annotations.name or "mitotic figures", ensure_ascii=False)},\n'
        f'  "type": "{POINTS_TYPE}",\n  "points": {points},\n'
        '  "version": {"major": 1, "minor": 0}\n}\n'
    )


def read_grand_challenge(
    path: Path, content: Any, mpp: float, classes: Classes = CLASSES
) -> Annotations:
    """Read a parsed Grand Challenge file. A point without a name is a mitotic figure.

    Args:
        path: for messages, and the name where the file has none.
        content: from `load_json` with decimals.
        mpp: of the image; the file is in millimeters.
        classes: the names of mitoses, hard negatives and unsure cells.

    Raises:
        DataError: if it is not of type `Multiple points`, or a point is not one, by number.
        ScaleError: if `mpp` is impossible.
    """
    mpp = check_mpp(mpp, str(path))
    if not isinstance(content, dict) or content.get("type") != POINTS_TYPE:
        raise DataError(f"{path} is not a Grand Challenge file of type {POINTS_TYPE!r}")
    file = checked(content, _Points, str(path))
    labels: list[Label] = []
    left_out: Counter[str] = Counter()
    rows = list(_rows(path, file, mpp, classes, labels, left_out))
    name = file.name if isinstance(file.name, str) else path.stem
    return Annotations.from_rows(rows, labels, mpp=mpp, name=name, left_out=left_out)


def _rows(
    path: Path,
    file: _Points,
    mpp: float,
    classes: Classes,
    labels: list[Label],
    left_out: Counter[str],
) -> Iterator[tuple[float, ...]]:
    for number, point in enumerate(file.points, start=1):
        where = f"{path}, point {number}"
        label = classes.label(point.name or "mitotic figure")
        if label is None and classes.is_ignored(point.name or ""):
            left_out[str(point.name)] += 1
            continue
        if label is None:
            raise DataError(
                f"{where}: name {point.name!r:.60}; expected 'mitotic figure' or "
                "'non-mitotic figure'"
            )
        if len(point.point) not in (2, 3):
            raise DataError(f"{where}: {len(point.point)} numbers are not [x_mm, y_mm, 0]")
        x, y = (_px(value, mpp, where) for value in point.point[:2])
        score = math.nan if point.probability is None else float(point.probability)
        labels.append(label)
        yield x, y, score, math.nan, math.nan


def _mm(px: float, mpp: float) -> str:
    with localcontext() as context:
        context.prec = _DIGITS
        return f"{Decimal(px) * Decimal(mpp) / 1000:f}"


def _px(mm: _Number, mpp: float, where: str) -> float:
    if not abs(float(mm)) <= LARGEST_PX:
        raise DataError(f"{where}: point {float(mm)} is no position in millimeters")
    with localcontext() as context:
        context.prec = 2 * _DIGITS
        px = float(Decimal(mm) * 1000 / Decimal(mpp))
    if abs(px) > _MOST_PX:
        raise DataError(
            f"{where}: {float(mm):g} mm are {px:.0f} px of {mpp:g} um, on no slide; positions are "
            "millimeters in this format: are these pixels?"
        )
    return px
