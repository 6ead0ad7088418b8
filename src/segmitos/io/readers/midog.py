"""MIDOG 2021, 2022 and ++: a COCO-like JSON whose boxes are not COCO's.

`bbox` is [x1, y1, x2, y2] in level-0 pixels, 50 x 50, integers and floats mixed (the organisers'
training notebooks draw it so; Aubreville et al. 2023, Scientific Data 2023 for ++). Categories are
told by name: `mitotic figure`, and `not mitotic figure` or `hard negative` for look-alikes, which
the organisers say are not exhaustive. An image without any annotation is unlabelled and left out.
Images lie beside the JSON or in `images/`. The case table of ++ is a `;` CSV (Slide, Dataset,
Tumor, Scanner, Origin, Species).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import DataError
from segmitos.io.datasets import Case
from segmitos.io.readers.table import read_lines

# Hamamatsu XR 0.23, S360 0.23, Aperio 0.25 um/px: the challenge's slides are about x40.
_MPP = 0.25
_MITOSIS = ("mitotic figure", "mitosis")
_OTHER = ("not mitotic figure", "hard negative", "non-mitotic figure", "imposter")


def midog(path: Path) -> list[Case]:
    """Read a MIDOG JSON, or the one in a folder. Images need not be there to be described.

    Raises:
        DataError: for JSON that is not MIDOG's, a box that is no box, an unknown image. Boxes at
            a slide's edge may have their centre a little outside: `dataset describe` lists them.
    """
    table = _find(path)
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
        kinds = {entry["id"]: _kind(entry["name"], table) for entry in content["categories"]}
        images = {entry["id"]: entry for entry in content["images"]}
        annotations = content["annotations"]
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{table} is not a MIDOG JSON: {error!r}") from error
    points: dict[tuple[Any, bool], list[tuple[float, float]]] = {}
    for number, entry in enumerate(annotations):
        image, centre, mitosis = _annotation(entry, number, kinds, table)
        if image not in images:
            raise DataError(f"{table}: annotation {number} names image {image!r}, which is unknown")
        points.setdefault((image, mitosis), []).append(centre)
    scanners = _scanners(table.parent)
    # The organisers released 50 images of one scanner without labels; nobody knows what is on them.
    labelled = {image for image, _ in points}
    return [_case(e, points, table, scanners) for e in images.values() if e["id"] in labelled]


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.json"))
    if len(found) != 1:
        raise DataError(f"{path} holds {len(found)} JSON files; name the one to read")
    return found[0]


def _kind(name: str, table: Path) -> bool:
    lowered = name.strip().lower()
    if lowered in _MITOSIS:
        return True
    if lowered in _OTHER:
        return False
    raise DataError(f"{table}: category {name!r} is neither mitotic figure nor look-alike")


def _annotation(
    entry: Any, number: int, kinds: dict[Any, bool], table: Path
) -> tuple[Any, tuple[float, float], bool]:
    try:
        x1, y1, x2, y2 = (float(value) for value in entry["bbox"])
        image, mitosis = entry["image_id"], kinds[entry["category_id"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{table}: annotation {number} is off: {error!r}") from error
    if x2 <= x1 or y2 <= y1:
        raise DataError(
            f"{table}: annotation {number} has bbox [{x1:g}, {y1:g}, {x2:g}, {y2:g}]; MIDOG boxes "
            "are [x1, y1, x2, y2] (COCO's are [x, y, width, height])"
        )
    return image, ((x1 + x2) / 2, (y1 + y2) / 2), mitosis


def _case(
    entry: dict[str, Any],
    points: dict[tuple[Any, bool], list[tuple[float, float]]],
    table: Path,
    scanners: dict[str, str],
) -> Case:
    name = str(entry["file_name"])
    stem = Path(name).stem
    size = (int(entry["width"]), int(entry["height"]))
    mitoses, others = (
        np.array(points.get((entry["id"], kind), []), float).reshape(-1, 2)
        for kind in (True, False)
    )
    places = (table.parent / name, table.parent / "images" / name)
    return Case(
        name=stem,
        image=next((place for place in places if place.exists()), places[0]),
        mitoses_xy=mitoses,
        hard_negatives_xy=others,
        mpp=_MPP,
        slide=stem,
        patient=stem,
        dataset="midog",
        scanner=scanners.get(stem.lstrip("0"), ""),
        size_px=size,
    )


def _scanners(folder: Path) -> dict[str, str]:
    """Scanner by slide number from the case table, where it lies beside the JSON."""
    result: dict[str, str] = {}
    for path in sorted(folder.glob("*.csv")):
        header, *lines = read_lines(path) or [[]]
        cells = [";".join(line).split(";") for line in (header, *lines)]
        if cells and {"Slide", "Scanner"} <= set(cells[0]):
            slide, scanner = cells[0].index("Slide"), cells[0].index("Scanner")
            result |= {row[slide]: row[scanner] for row in cells[1:] if len(row) > scanner}
    return result
