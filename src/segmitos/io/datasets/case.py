"""One annotated image."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmitos.io.points.regions import Regions

if TYPE_CHECKING:
    from segmitos.io.slide import Slide

Points = NDArray[np.float64]
# Data sets whose slides crops are cut from, by the names that tables of crops give them, and how
# many digits their slides' numbers have. A crop's slide is a number, and may go on after a `_`.
_CROPPED = dict.fromkeys(("tupac16", "amida13"), ("tupac16", 2)) | dict.fromkeys(
    ("midog", "midog21", "midog2021", "midog22", "midog2022", "midog++"), ("midog", 3)
)
_NUMBER = re.compile("([0-9]+)(_.*)?")


def no_points() -> Points:
    """Return an empty (0, 2) array of positions."""
    return np.zeros((0, 2))


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """One annotated image. Positions are (x, y) level-0 pixels, pixel centers at integers.

    The image need not be there: annotations alone can be described, and whatever reads the image
    names it. Two cases are equal only where they are one, since arrays have no single truth.
    """

    name: str
    image: Path
    mitoses_xy: Points
    hard_negatives_xy: Points
    mpp: float | None
    slide: str
    patient: str = ""
    dataset: str = ""
    mask: Path | None = None
    """Pixel mask, 255 inside mitoses or masses."""
    radii_px: NDArray[np.float64] | None = None
    """Radius of each lesion of `mitoses_xy`, for masses; shape (n,)."""
    centered_crop: bool = False
    """Whether the image was cut round a mitosis."""
    confidence: NDArray[np.float64] | None = None
    """Fraction of annotators that called each of `mitoses_xy` a mitosis; shape (n,), nan where
    unknown; None where it is unknown of all."""
    scanner: str = ""
    size_px: tuple[int, int] | None = None
    """Width and height, where the format or the image's header tells them cheaply."""
    tumour: str = ""
    override_mpp: bool = False
    """Whether `mpp` holds even where the image's file states another scale."""
    unsure_xy: Points = field(default_factory=no_points)
    """Neither mitosis nor hard negative: ignored in training, counted neither way in scoring."""
    regions: Regions | None = None
    """Where every mitosis is marked: nothing else is sampled, mined or scored. None: everywhere."""
    laboratory: str = ""
    """Who made and scanned the slides; scores that hold in one laboratory may fail in the next."""

    def __repr__(self) -> str:
        counts = (
            f"{len(points)} {name}"
            for name, points in (
                ("mitoses", self.mitoses_xy),
                ("hard negatives", self.hard_negatives_xy),
                ("unsure", self.unsure_xy),
            )
        )
        scale = "scale unknown" if self.mpp is None else f"{self.mpp:g} um/px"
        regions = "" if self.regions is None else f", {self.regions}"
        return f"Case({self.name!r}, slide {self.slide}, {', '.join(counts)}, {scale}{regions})"

    def is_reviewed(self, points_xy: Points) -> NDArray[np.bool_]:
        """Tell which points (n, 2) lie where every mitosis is marked."""
        if self.regions is None:
            return np.ones(len(points_xy), np.bool_)
        return self.regions.contains(points_xy)

    @property
    def collection(self) -> str:
        """The data set whose slides these are: those of AMIDA13 are TUPAC16's of that number."""
        return "tupac16" if self.dataset == "amida13" else self.dataset

    @property
    def group(self) -> str:
        """What is never divided: the patient of a data set, its slide where that is not told.

        Crops that were cut from a slide of a known data set are its patient's.
        """
        slide = self.slide.removeprefix(f"{self.collection}/")
        if self.dataset == "crops":
            name, _, rest = slide.partition("/")
            number = _NUMBER.fullmatch(rest)
            if number is not None and name.lower() in _CROPPED:
                collection, digits = _CROPPED[name.lower()]
                # Spreadsheets take 002 for the number 2.
                return f"{collection}/{number[1].zfill(digits)}"
        return f"{self.collection}/{self.patient or slide}"

    @property
    def ignored_xy(self) -> Points:
        """What a detection may lie at and count neither way, unless it matches a reviewed mitosis.

        Unsure cells, and mitoses outside of the reviewed regions (n, 2).
        """
        outside = self.mitoses_xy[~self.is_reviewed(self.mitoses_xy)]
        return np.concatenate([self.unsure_xy.reshape(-1, 2), outside.reshape(-1, 2)])

    def open_image(self) -> Slide:
        """Open the image at its scale: the file's own, else `mpp`.

        Raises:
            InputError: as `Slide.open`.
        """
        from segmitos.io.slide import Slide

        return Slide.open(self.image, mpp=self.mpp, override_mpp=self.override_mpp)
