"""MIDOG 2021, 2022 and ++: a COCO-like JSON whose boxes are not COCO's.

`bbox` is [x1, y1, x2, y2] in level-0 pixels, integers and floats mixed: readers of several groups
take `0.5 * (box[0] + box[2])` for the center (one reads COCO's [x, y, width, height], and is
wrong), and every box of both published files is 50 x 50 px when read so (Aubreville et al. 2023;
Scientific Data 2023 for ++). Categories are told by name: `mitotic figure`, and `not mitotic
figure` or `hard negative` for look-alikes, which the organizers say are not exhaustive. `labels`
(++) are the pathologists' votes. An image without any annotation is unlabeled (the organizers
released such) and left out. Images lie beside the JSON or in `images/`. The case table of ++ is a
`;` CSV (Slide, Dataset, Tumor, Scanner, Origin, Species).
"""

from __future__ import annotations

import re
from pathlib import Path

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case
from segmitos.io.datasets.table import image_header, named_file
from segmitos.io.json_files import load_json
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.coco import (
    BOXES_NOTE,
    Image,
    coco_annotations,
    layout_of,
    parse_coco,
)
from segmitos.io.problems import Problems, collected
from segmitos.io.tables import read_table

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


def midog(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read a MIDOG JSON, or the one in a folder. Images need not be there to be described.

    The scale is the image's own where it says one (the published TIFFs do), else its scanner's,
    else unknown.

    Raises:
        DataError: for JSON that is not MIDOG's, boxes that are not corners, an unknown image. Boxes
            at a slide's edge may have their center a little outside: `dataset describe` lists them.
    """
    table = _find(path)
    file = parse_coco(table, load_json(table))
    if layout_of(table, file, "corners") == "sizes":
        raise DataError(
            f"{table}: its boxes are COCO's [x, y, width, height], MIDOG's are [x1, y1, x2, y2]; "
            "convert them, image by image, with 'segmitos convert'"
        )
    info = file.info if isinstance(file.info, dict) else {}
    description = str(info.get("description", ""))
    # Labels of any image that `convert` wrote name MIDOG, too, for their boxes.
    published = "midog" in description.lower() and not description.startswith(BOXES_NOTE)
    about = _case_table(table.parent)
    labeled = {box.image_id for box in file.annotations}
    cases = []
    for image in file.images:
        if image.id in labeled:
            with collected(problems):
                found = coco_annotations(table, file, "corners", image)
                cases.append(_case(found, image, table.parent, about, published))
    return cases


def unlabeled(path: Path) -> list[str]:
    """Say how many images `midog` leaves out. Raises DataError as it does."""
    table = _find(path)
    file = parse_coco(table, load_json(table))
    labeled = {box.image_id for box in file.annotations}
    count = sum(image.id not in labeled for image in file.images)
    if not count:
        return []
    return [
        f"{table}: images without any annotation are left out as unlabeled: {count} of "
        f"{len(file.images)}"
    ]


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.json"))
    if len(found) != 1:
        raise DataError(f"{path} holds {len(found)} JSON files; name the one to read")
    return found[0]


def _case(
    found: Annotations,
    image: Image,
    folder: Path,
    about: dict[str, dict[str, str]],
    published: bool,
) -> Case:
    name = image.file_name
    named_file(folder, name, f"{folder}: image {image.id!r:.60}")
    stem = Path(name).stem
    row = about.get(stem.lstrip("0"), {})
    tumour = image.tumor_type or row.get("tumor", "")
    # The published table spells one scanner in two ways.
    scanner = row.get("scanner", "").replace("Hamammatsu", "Hamamatsu")
    if published and not scanner:
        scanner = _scanner(stem, tumour)
    places = (folder / name, folder / "images" / name)
    file = next((place for place in places if place.exists()), places[0])
    size = None if image.width is None or image.height is None else (image.width, image.height)
    return Case(
        name=stem,
        image=file,
        mitoses_xy=found.of("mitosis"),
        hard_negatives_xy=found.of("non-mitosis"),
        unsure_xy=found.of("unsure"),
        mpp=image_header(file)[1] or _MPP.get(scanner),
        slide=stem,
        patient=stem,
        dataset="midog",
        confidence=found.mitosis_confidence(),
        scanner=scanner,
        tumour=tumour,
        size_px=None if size is None else (int(size[0]), int(size[1])),
    )


def _scanner(stem: str, tumour: str) -> str:
    """Tell the scanner of a published image from its number or tumour, "" where neither tells."""
    if re.fullmatch("[0-9]{3}", stem) and int(stem) <= _BREAST[-1][0]:
        return next(scanner for last, scanner in _BREAST if int(stem) <= last)
    return _BY_TUMOUR.get(tumour, "")


def _case_table(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of the case table by slide number, where one lies beside the JSON."""
    result: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.csv")):
        table = read_table(path)
        if {"slide", "scanner"} <= {name.lower() for name in table.header}:
            result |= {row["slide"]: row for _, row in table.named()}
    return result
