"""Every laboratory's images in memory at 0.25 um/px, with folds that leave one laboratory out."""

from __future__ import annotations

import csv
import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.errors import DataError
from segmitos.io.datasets import Case, load_dataset
from segmitos.io.geometry import rescale
from segmitos.training.sampling import TrainingImage, load_training_images

MPP = 0.25
UNSURE_TABLES = sorted((Path(__file__).resolve().parents[1] / "labels").glob("*.csv"))
FIELDS = ("mitos14", "mitos12", "midesec")
BACKGROUND = ("ucsb-breast", "monuseg", "tnbc")
_SETS: dict[str, tuple[str, float | None]] = {
    "mitos14": ("mitos14:mitos-atypia-14", None),
    "mitos12": ("mitos12:mitos12", None),
    "midesec": ("points:midesec", MPP),
    "ucsb-breast": ("points:background/ucsb-breast", 0.31),
    "monuseg": ("points:background/monuseg", 0.25),
    "tnbc": ("points:background/tnbc", 0.25),
    "crops": ("crops:mitosis-crops", None),
}
"""Format, folder, and um/px where the files do not state it."""
CROP_GROUPS = (
    "MIDOG 2021, Hamamatsu XR",
    "MIDOG 2021, Hamamatsu S360",
    "MIDOG 2021, Aperio CS2",
    "TUPAC16",
)
TEST_SLIDE = "H03"
# The stain that slides are matched to: that of the seven training slides of MITOS-ATYPIA-14.
TARGET = Stain(
    (0.30049521572085697, 0.930636137295605, 0.40739973905556504),
    (0.21424393218040014, 0.465342508665269, 0.20921800505475271),
)


@dataclasses.dataclass
class LabImage:
    """One image: its pixels, points and where it belongs."""

    laboratory: str
    name: str
    fold: int
    """In which it is left out; the test slide is left out of all."""
    test: bool
    source: TrainingImage
    unsure_xy: NDArray[np.float64]
    ratio: float
    """Pixels of the file per pixel at 0.25 um/px."""

    def at_model_scale(self, points_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions (n, 2) in the file's pixels in those at 0.25 um/px."""
        return rescale(points_xy, 1 / self.ratio)

    @property
    def area_mm2(self) -> float:
        """Of the whole image, mm2."""
        height, width = self.source.image.shape[:2]
        return float(height * width * MPP**2 * 1e-6)

    def matched(self, target: Stain = TARGET) -> NDArray[np.uint8]:
        """Return the pixels as detection sees them, their stain moved onto `target`."""
        if self.source.stain is None:
            return self.source.image
        return apply_lookup(self.source.image, stain_lookup(self.source.stain, target))


def load_laboratories(data: Path) -> list[LabImage]:
    """Read all data sets under a folder, with the cells that `UNSURE_TABLES` name.

    Raises:
        DataError: where a table names an image that is not there.
    """
    images: list[LabImage] = []
    for laboratory in _SETS:
        images += read_images(laboratory, laboratory_cases(data, laboratory))
    mark_unsure(images)
    return images


def laboratory_cases(data: Path, laboratory: str) -> list[Case]:
    """Read a laboratory's cases under the folder of all data sets."""
    spec, mpp = _SETS[laboratory]
    kind, _, folder = spec.partition(":")
    return load_dataset([f"{kind}:{data / folder}"], mpp=mpp)


def image_name(laboratory: str, case: Case) -> str:
    """Return what the tables of unsure cells call an image."""
    return case.image.name if laboratory in ("midesec", *BACKGROUND) else case.name


def unsure_cells(laboratory: str) -> dict[str, NDArray[np.float64]]:
    """Return positions (n, 2) by image, in the file's pixels, of the tables in `UNSURE_TABLES`."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for table in UNSURE_TABLES:
        for named, image, place in read_unsure(table):
            if named == laboratory:
                rows.setdefault(image, []).append(place)
    return {image: np.array(places) for image, places in rows.items()}


def with_unsure(laboratory: str, cases: Sequence[Case]) -> list[Case]:
    """Return a laboratory's cases with the unsure cells of the tables in `UNSURE_TABLES` added."""
    unsure = unsure_cells(laboratory)
    return [
        dataclasses.replace(
            case, unsure_xy=np.concatenate([case.unsure_xy, unsure[image_name(laboratory, case)]])
        )
        if image_name(laboratory, case) in unsure
        else case
        for case in cases
    ]


def crop_group(slide: str) -> str:
    """Return the scanner or collection of a crop's slide.

    MIDOG 2021 has three scanners, told by the slide's number.
    """
    collection, _, number = slide.partition("/")
    return CROP_GROUPS[min(2, (int(number) - 1) // 50)] if collection == "MIDOG21" else collection


def mark_unsure(images: Sequence[LabImage], some: bool = False) -> None:
    """Add the cells that `UNSURE_TABLES` name to images; `some`: only part of the images is there.

    Raises:
        DataError: where a table names an image that is not there.
    """
    by_name = {(image.laboratory, image.name): image for image in images}
    for table in UNSURE_TABLES:
        for dataset, name, place in read_unsure(table):
            image = by_name.get((dataset, name))
            if image is not None:
                unsure = image.at_model_scale(np.array([place]))
                image.unsure_xy = np.concatenate([image.unsure_xy, unsure])
            elif not some:
                raise DataError(f"{table}: there is no image {dataset} {name}")


def read_unsure(table: Path) -> list[tuple[str, str, tuple[float, float]]]:
    """Read data set, image and position, in the file's pixels, of a table's unsure cells."""
    with table.open(newline="") as file:
        return [
            (row["dataset"], row["image"], (float(row["x_px"]), float(row["y_px"])))
            for row in csv.DictReader(file)
        ]


def read_images(laboratory: str, cases: Sequence[Case]) -> list[LabImage]:
    """Read a laboratory's cases at 0.25 um/px, each with the fold that leaves it out.

    Fields belong to the fold of their laboratory; crops and background are divided by slide.
    """
    images = []
    for case, source in zip(cases, load_training_images(cases, MPP), strict=True):
        if not source.centered:
            # As detection does, which sees a field alone; crops have too few pixels for that.
            source.stain = od_statistics(source.image[::2, ::2]) or TARGET
        if laboratory in FIELDS:
            fold = FIELDS.index(laboratory)
        else:
            fold = zlib.crc32((laboratory + case.slide).encode()) % len(FIELDS)
        test = laboratory == "mitos14" and case.slide.startswith(TEST_SLIDE)
        ratio = MPP / (case.mpp or MPP)
        image = LabImage(
            laboratory, image_name(laboratory, case), fold, test, source, np.zeros((0, 2)), ratio
        )
        image.unsure_xy = image.at_model_scale(np.asarray(case.unsure_xy, float).reshape(-1, 2))
        images.append(image)
    return images
