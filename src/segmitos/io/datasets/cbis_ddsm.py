"""CBIS-DDSM masses: mammograms with a mask of each lesion; malignant is foreground.

Case tables `mass_case_description_train_set.csv` and `..._test_set.csv` (Lee et al. 2017; TCIA)
with the columns patient_id, breast_density, left or right breast, image view, abnormality id,
abnormality type, mass shape, mass margins, assessment, pathology, subtlety, image file path,
cropped image file path, ROI mask file path; one lesion a line, several to a mammogram. Confirmed
in the column lists of three independent readers. A path is `FOLDER/STUDY/SERIES/000000.dcm`, and
on disk FOLDER, STUDY or SERIES may be all that is left of it: TCIA's downloader names folders
after dates and series descriptions, copies in JPEG keep `SERIES/` only. So an image is looked for
by its SERIES, then by its FOLDER, in whatever tree.

The paths of crop and mask are swapped in places (two readers try both, one takes the two-valued
image), so the mask is the largest image of the two that has two values. Some masks have another
size than their mammogram (fjeg/ddsm_tools, issue 5); they are stretched to it.

DICOM files are not read: convert them to PNG or TIFF in the same folders. The scale depends on the
digitizer (42 to 50 um/px), which the tables do not name: give --mpp.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case
from segmitos.io.datasets.masks import cached, save_mask
from segmitos.io.datasets.table import IMAGES, image_size, named_file, named_rows, require_folder
from segmitos.io.files import write_json
from segmitos.io.json_files import load_json
from segmitos.io.problems import Problems, collected

_PATHS = ("image file path", "cropped image file path", "ROI mask file path")
_COLUMNS = ("patient_id", "pathology", *_PATHS)
_MALIGNANT = {"MALIGNANT": True, "BENIGN": False, "BENIGN_WITHOUT_CALLBACK": False}
# What JPEG leaves between black and white in a mask; a crop of a mammogram has far more.
_MAX_BETWEEN = 0.02


@dataclass(frozen=True)
class _Lesion:
    where: str
    patient: str
    malignant: bool
    image: str
    others: tuple[str, str]


def cbis_ddsm(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read the mass tables of a folder, in whatever tree the images lie.

    One case a mammogram. `mitoses_xy` are the centers of the boxes round malignant masses,
    `radii_px` half of the box's longer side (paper, section 4.6: its concentric label is drawn
    from the box); benign masses are hard negatives. `mask` holds the malignant masses. The slide
    of a case is its patient, so that the views of a breast stay on one side of a split.

    Raises:
        DataError: for a missing table or column, an unknown pathology, a lesion whose mask is not
            there, images that are all DICOM.
    """
    require_folder(path, "cbis-ddsm")
    tables, by_folder = _walk(path)
    mammograms: dict[str, list[_Lesion]] = {}
    for table in tables:
        for line, row in named_rows(table, _COLUMNS):
            with collected(problems):
                lesion = _lesion(row, f"{table}, line {line}")
                mammograms.setdefault(lesion.image, []).append(lesion)
    if not mammograms:
        raise DataError(f"{path} holds no mass_case_description CSV: it is not in this layout")
    cases = []
    for lesions in mammograms.values():
        with collected(problems):
            cases.append(_case(path, lesions, by_folder))
    return cases


def _walk(path: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """Find the case tables, and the images by the name of each folder above them and their own."""
    tables: list[Path] = []
    by_folder: dict[str, list[Path]] = {}
    for folder, folders, files in os.walk(path):
        folders.sort()
        here = Path(folder)
        for file in sorted(files):
            suffix = Path(file).suffix.lower()
            if suffix == ".csv" and file.lower().startswith("mass"):
                tables.append(here / file)
            elif suffix in (*IMAGES, ".dcm") and not file.startswith("."):
                for name in {*here.relative_to(path).parts, Path(file).stem}:
                    by_folder.setdefault(name, []).append(here / file)
    return tables, by_folder


def _lesion(row: dict[str, str], where: str) -> _Lesion:
    pathology = row["pathology"].upper()
    if pathology not in _MALIGNANT:
        known = ", ".join(_MALIGNANT)
        raise DataError(f"{where}: pathology is {row['pathology']!r}, not one of {known}")
    image, crop, mask = (row[name.lower()].replace("\\", "/").strip('"/ ') for name in _PATHS)
    for name in filter(None, (image, crop, mask)):
        named_file(Path(), name, where)
    return _Lesion(where, row["patient_id"], _MALIGNANT[pathology], image, (mask, crop))


def _find(csv_path: str, by_folder: dict[str, list[Path]], where: str) -> list[Path]:
    """Images that a path of the table may mean: those of its series, else of its folder."""
    parts = csv_path.split("/")
    series = parts[-2] if len(parts) > 1 else ""
    found = by_folder.get(series) or by_folder.get(parts[0]) or []
    images = [file for file in found if file.suffix.lower() != ".dcm"]
    if found and not images:
        raise DataError(
            f"{where}: {found[0]} is DICOM, which is not read; convert the images to PNG in place"
        )
    return images


def _case(path: Path, lesions: list[_Lesion], by_folder: dict[str, list[Path]]) -> Case:
    first = lesions[0]
    found = _find(first.image, by_folder, first.where)
    image = max(found, key=_area) if found else path / first.image
    candidates = [_candidates(lesion, by_folder) for lesion in lesions]
    size = image_size(image) if found else image_size(candidates[0][0])
    boxes, mask = _drawn(lesions, candidates, size)
    malignant = np.array([lesion.malignant for lesion in lesions])
    return Case(
        name=first.image.split("/")[0],
        image=image,
        mitoses_xy=boxes[malignant, :2],
        hard_negatives_xy=boxes[~malignant, :2],
        mpp=None,
        slide=first.patient,
        patient=first.patient,
        dataset="cbis-ddsm",
        mask=mask,
        radii_px=boxes[malignant, 2],
        size_px=size,
    )


def _area(image: Path) -> int:
    width, height = image_size(image)
    return width * height


def _candidates(lesion: _Lesion, by_folder: dict[str, list[Path]]) -> list[Path]:
    """Images that may be the lesion's mask, largest first."""
    found = {file for path in lesion.others for file in _find(path, by_folder, lesion.where)}
    if not found:
        raise DataError(f"{lesion.where}: the ROI mask {lesion.others[0]} is missing")
    return sorted(found, key=lambda file: (-_area(file), file))


def _drawn(
    lesions: list[_Lesion], candidates: list[list[Path]], size: tuple[int, int]
) -> tuple[NDArray[np.float64], Path]:
    """Boxes as x, y, radius (n, 3) and one mask of the malignant lesions, kept for the next time.

    Reading some thousand masks takes minutes, which training should not wait for twice.
    """
    drawn_from = [
        (lesion.malignant, [(str(file.absolute()), *_stamp(file)) for file in files])
        for lesion, files in zip(lesions, candidates, strict=True)
    ]
    key = json.dumps(["cbis-ddsm 1", size, drawn_from]).encode()
    mask_path, box_path = cached(key, ".png"), cached(key, ".json")
    if box_path.is_file() and mask_path.is_file():
        with suppress(DataError, ValueError):
            kept: Any = load_json(box_path)
            return np.array(kept, float).reshape(len(lesions), 3), mask_path
    merged = np.zeros(size[::-1], np.uint8)
    boxes = []
    for lesion, files in zip(lesions, candidates, strict=True):
        filled = _read_mask(files, lesion.where, size)
        boxes.append(_box(filled))
        if lesion.malignant:
            merged[filled] = 255
    save_mask(merged, mask_path)
    write_json(box_path, boxes)
    return np.array(boxes, float).reshape(-1, 3), mask_path


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


def _read_mask(files: Iterable[Path], where: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read the first image with two values, stretched to the mammogram's size (width, height)."""
    from PIL import Image

    for file in files:
        try:
            with Image.open(file) as opened:
                pixels = np.asarray(opened if opened.mode != "RGB" else opened.convert("L"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{where}: cannot read {file}: {error}") from error
        if pixels.ndim != 2 or not pixels.any():
            continue
        level = pixels / pixels.max()
        if ((level > 0.2) & (level < 0.8)).mean() <= _MAX_BETWEEN:
            resized = Image.fromarray(level > 0.5).resize(size, Image.Resampling.NEAREST)
            filled = np.asarray(resized)
            if filled.any():
                return filled
    raise DataError(f"{where}: none of its images is a mask of two values")


def _box(filled: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Center of the box round a mask, and half of its longer side."""
    columns, rows = np.flatnonzero(filled.any(axis=0)), np.flatnonzero(filled.any(axis=1))
    left, right, top, bottom = columns[0], columns[-1], rows[0], rows[-1]
    longer = max(right - left + 1, bottom - top + 1)
    return float(left + right) / 2, float(top + bottom) / 2, float(longer) / 2
