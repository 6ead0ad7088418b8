"""MIDOG 2021, 2022 and ++: a COCO-like JSON whose boxes are not COCO's.

`bbox` is [x1, y1, x2, y2] in level-0 pixels, integers and floats mixed: readers of several groups
take `0.5 * (box[0] + box[2])` for the center (one reads COCO's [x, y, width, height], and is
wrong), and every box of both published files is 50 x 50 px when read so (Aubreville et al. 2023;
Scientific Data 2023 for ++). Categories are told by name: `mitotic figure`, and `not mitotic
figure` or `hard negative` for look-alikes, which the organisers say are not exhaustive. `labels`
(++) are the pathologists' votes. An image without any annotation is unlabelled (the organisers
released such) and left out. Images lie beside the JSON or in `images/`. The case table of ++ is a
`;` CSV (Slide, Dataset, Tumor, Scanner, Origin, Species).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case
from segmitos.io.datasets.table import image_header, read_lines

_MITOSIS = ("mitotic figure", "mitosis")
_OTHER = ("not mitotic figure", "hard negative", "non-mitotic figure", "imposter")
# Every region is 2 mm2, which gives the scale of each scanner (median over its images; within 1 %).
# The paper rounds: 0.23 for both Hamamatsu, 0.25 for Aperio and 3DHistech, 0.26 for Leica.
_MPP = {
    "Hamamatsu XR": 0.2263,
    "Hamamatsu S360": 0.2294,
    "Aperio CS2": 0.2533,
    "Leica GT450": 0.2628,
    "3D Histech": 0.2483,
}
# Who scanned which breast cancer is told by number, the same in all three releases.
_BREAST = ((50, "Hamamatsu XR"), (100, "Hamamatsu S360"), (150, "Aperio CS2"))
_BY_TUMOUR = {
    "canine lung cancer": "3D Histech",
    "canine lymphosarcoma": "3D Histech",
    "canine lymphoma": "3D Histech",
    "canine soft tissue sarcoma": "3D Histech",
    "canine cutaneous mast cell tumor": "Aperio CS2",
    "human neuroendocrine tumor": "Hamamatsu XR",
    "human melanoma": "Hamamatsu XR",
}
_Points = dict[tuple[Any, bool], list[tuple[float, float, float]]]


def midog(path: Path) -> list[Case]:
    """Read a MIDOG JSON, or the one in a folder. Images need not be there to be described.

    The scale is the image's own where it says one (the published TIFFs do), else its scanner's,
    else unknown.

    Raises:
        DataError: for JSON that is not MIDOG's, a box that is no box, an unknown image. Boxes at
            a slide's edge may have their center a little outside: `dataset describe` lists them.
    """
    table = _find(path)
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
        kinds = {entry["id"]: _kind(entry["name"], table) for entry in content["categories"]}
        images = {entry["id"]: _image(entry) for entry in content["images"]}
        annotations = list(content["annotations"])
        published = "midog" in str((content.get("info") or {}).get("description", "")).lower()
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{table} is not a MIDOG JSON: {error!r}") from error
    points: _Points = {}
    for number, entry in enumerate(annotations):
        image, point, mitosis = _annotation(entry, number, kinds, table)
        if image not in images:
            raise DataError(f"{table}: annotation {number} names image {image!r}, which is unknown")
        points.setdefault((image, mitosis), []).append(point)
    about = _case_table(table.parent)
    labelled = {image for image, _ in points}
    return [
        _case(key, image, points, table.parent, about, published)
        for key, image in images.items()
        if key in labelled
    ]


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


def _image(entry: dict[str, Any]) -> tuple[str, tuple[int, int], str]:
    """File name, size and tumour of an image."""
    size = (int(entry["width"]), int(entry["height"]))
    return str(entry["file_name"]), size, str(entry.get("tumor_type", ""))


def _annotation(
    entry: Any, number: int, kinds: dict[Any, bool], table: Path
) -> tuple[Any, tuple[float, float, float], bool]:
    """Image, center with the share of votes for a mitosis (nan without votes), and the kind."""
    try:
        x1, y1, x2, y2 = (float(value) for value in entry["bbox"])
        image, mitosis = entry["image_id"], kinds[entry["category_id"]]
        votes = [kinds.get(vote, False) for vote in entry.get("labels") or ()]
        hash(image)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{table}: annotation {number} is off: {error!r}") from error
    if not (x2 > x1 and y2 > y1 and all(map(math.isfinite, (x1, y1, x2, y2)))):
        raise DataError(
            f"{table}: annotation {number} has bbox [{x1:g}, {y1:g}, {x2:g}, {y2:g}]; MIDOG boxes "
            "are [x1, y1, x2, y2] (COCO's are [x, y, width, height])"
        )
    share = sum(votes) / len(votes) if votes else math.nan
    return image, ((x1 + x2) / 2, (y1 + y2) / 2, share), mitosis


def _case(
    key: Any,
    image: tuple[str, tuple[int, int], str],
    points: _Points,
    folder: Path,
    about: dict[str, dict[str, str]],
    published: bool,
) -> Case:
    name, size, tumour = image
    stem = Path(name).stem
    mitoses, others = (
        np.array(points.get((key, kind), []), float).reshape(-1, 3) for kind in (True, False)
    )
    row = about.get(stem.lstrip("0"), {})
    tumour = tumour or row.get("Tumor", "")
    # The published table spells one scanner in two ways.
    scanner = row.get("Scanner", "").replace("Hamammatsu", "Hamamatsu")
    if published and not scanner:
        scanner = _scanner(stem, tumour)
    places = (folder / name, folder / "images" / name)
    file = next((place for place in places if place.exists()), places[0])
    return Case(
        name=stem,
        image=file,
        mitoses_xy=mitoses[:, :2],
        hard_negatives_xy=others[:, :2],
        mpp=image_header(file).mpp or _MPP.get(scanner),
        slide=stem,
        patient=stem,
        dataset="midog",
        confidence=_confidence(mitoses[:, 2]),
        scanner=scanner,
        tumour=tumour,
        size_px=size,
    )


def _confidence(shares: NDArray[np.float64]) -> NDArray[np.float64] | None:
    return None if not len(shares) or np.isnan(shares).any() else shares


def _scanner(stem: str, tumour: str) -> str:
    """Tell the scanner of a published image from its number or tumour, "" where neither tells."""
    if stem.isdigit() and int(stem) <= _BREAST[-1][0]:
        return next(scanner for last, scanner in _BREAST if int(stem) <= last)
    return _BY_TUMOUR.get(tumour, "")


def _case_table(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of the case table by slide number, where one lies beside the JSON."""
    result: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.csv")):
        rows = [cells for _, cells in read_lines(path)]
        if rows and {"Slide", "Scanner"} <= set(rows[0]):
            named = [dict(zip(rows[0], cells, strict=False)) for cells in rows[1:] if any(cells)]
            result |= {row["Slide"]: row for row in named}
    return result
