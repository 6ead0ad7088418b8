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
_BACKGROUND_MPP = {"ucsb-breast": 0.31, "monuseg": 0.25, "tnbc": 0.25}
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
    for laboratory, spec, mpp in (
        ("mitos14", f"mitos14:{data / 'mitos-atypia-14'}", None),
        ("mitos12", f"mitos12:{data / 'mitos12'}", None),
        ("midesec", f"points:{data / 'midesec'}", MPP),
        *((name, f"points:{data / 'background' / name}", _BACKGROUND_MPP[name])
          for name in BACKGROUND),
        ("crops", f"crops:{data / 'mitosis-crops'}", None),
    ):  # fmt: skip
        images += read_images(laboratory, load_dataset([spec], mpp=mpp))
    mark_unsure(images)
    return images


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
        name = case.image.name if laboratory in ("midesec", *BACKGROUND) else case.name
        ratio = MPP / (case.mpp or MPP)
        image = LabImage(laboratory, name, fold, test, source, np.zeros((0, 2)), ratio)
        image.unsure_xy = image.at_model_scale(np.asarray(case.unsure_xy, float).reshape(-1, 2))
        images.append(image)
    return images
