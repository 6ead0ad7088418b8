"""Detected mitoses: position, area and score, in and out of files without losing a bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import ScaleError, UsageError
from segmitos.io.geometry import check_mpp
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import Label
from segmitos.io.points.geojson_features import annotations_content
from segmitos.io.points.native_json import native_content
from segmitos.io.points.read import read_annotations
from segmitos.io.tables import table_text

if TYPE_CHECKING:
    import pandas as pd

CSV_COLUMNS = ("x_px", "y_px", "x_um", "y_um", "area_um2", "score")
_FIELDS = ("x_px", "y_px", "area_um2", "score")


@dataclass(frozen=True, eq=False)
class Detections:
    """Mitoses found on one image or slide, in the order given (detection: by y, then x).

    Attributes:
        x_px: level-0 pixels, pixel centers at integers; float64 (n,), finite.
        y_px: the same.
        area_um2: area of the blob; nan where a file does not say.
        score: mean probability of the blob; nan where a file does not say.
        mpp: micrometers per level-0 pixel.
        name: of the image.

    Raises:
        UsageError: if the arrays differ in length or a position is not finite.
        ScaleError: if `mpp` is impossible.
    """

    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    area_um2: NDArray[np.float64]
    score: NDArray[np.float64]
    mpp: float
    name: str = ""

    def __post_init__(self) -> None:
        for field in _FIELDS:
            # A copy that cannot be written to, so that no caller changes another's detections.
            values = np.array(getattr(self, field), dtype=np.float64).reshape(-1)
            values.setflags(write=False)
            object.__setattr__(self, field, values)
        lengths = {field: len(getattr(self, field)) for field in _FIELDS}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"detections need arrays of one length, not {lengths}")
        if not (np.isfinite(self.x_px).all() and np.isfinite(self.y_px).all()):
            raise UsageError("detections must have finite positions")
        object.__setattr__(self, "mpp", check_mpp(self.mpp, self.name or "detections"))

    @classmethod
    def from_points(cls, points_xy: NDArray[Any], mpp: float, name: str = "") -> Detections:
        """Make detections of unknown area and score from points (n, 2)."""
        points = np.asarray(points_xy, dtype=np.float64).reshape(-1, 2)
        unknown = np.full(len(points), math.nan)
        return cls(points[:, 0], points[:, 1], unknown, unknown, mpp, name)

    @classmethod
    def from_annotations(
        cls, annotations: Annotations, mpp: float | None = None, where: str = ""
    ) -> Detections:
        """Make detections of the mitoses of annotations; hard negatives and unsure are left out.

        Args:
            annotations: of one image.
            mpp: um per pixel; None takes theirs.
            where: what to call them in an error; their name if empty.

        Raises:
            ScaleError: if `mpp` is neither given nor theirs.
        """
        scale = mpp if mpp is not None else annotations.mpp
        if scale is None:
            raise ScaleError(
                f"{where or annotations.name} does not say its scale: give um per pixel, e.g. "
                "--mpp 0.25"
            )
        own = annotations.select(annotations.is_label("mitosis"))
        assert own.area_um2 is not None and own.score is not None
        return cls(own.xy[:, 0], own.xy[:, 1], own.area_um2, own.score, scale, own.name)

    def __len__(self) -> int:
        return len(self.x_px)

    def __repr__(self) -> str:
        noun = "mitotic figure" if len(self) == 1 else "mitotic figures"
        return f"Detections({self.name!r}, {len(self)} {noun}, {self.mpp:g} um/px)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        return (self.mpp, self.name) == (other.mpp, other.name) and all(
            np.array_equal(getattr(self, field), getattr(other, field), equal_nan=True)
            for field in _FIELDS
        )

    @property
    def xy(self) -> NDArray[np.float64]:
        """Positions, (n, 2)."""
        return np.stack([self.x_px, self.y_px], axis=1)

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Detections:
        """Return the detections that a mask or an index array picks, in that order."""
        x, y, area, score = (getattr(self, field)[chosen] for field in _FIELDS)
        return Detections(x, y, area, score, self.mpp, self.name)

    def annotations(self) -> Annotations:
        """Return the detections as annotations, all of them mitoses."""
        labels: list[Label] = ["mitosis"] * len(self)
        return Annotations(
            self.xy, tuple(labels), self.score, self.area_um2, mpp=self.mpp, name=self.name
        )

    def to_csv(self) -> str:
        """Return CSV text `x_px,y_px,x_um,y_um,area_um2,score`; an unknown value is left empty."""
        rows = np.stack(self._columns(), axis=1).tolist()
        return table_text(
            CSV_COLUMNS, ([None if math.isnan(value) else value for value in row] for row in rows)
        )

    def to_json(self) -> dict[str, Any]:
        """Return an object for `json.dumps`; an unknown value is null."""
        return native_content(self.annotations())

    def to_geojson(
        self,
        object_type: str = "annotation",
        regions: Mapping[str, NDArray[Any]] | None = None,
        qupath_offset_px: tuple[float, float] = (0.0, 0.0),
    ) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection for QuPath; see `annotations_content`."""
        return annotations_content(self.annotations(), object_type, qupath_offset_px, regions)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas table with the columns of the CSV.

        Raises:
            UsageError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError(
                "to_dataframe needs pandas: in the source folder, pip install '.[dataframe]'"
            ) from error
        return pd.DataFrame(dict(zip(CSV_COLUMNS, self._columns(), strict=True)))

    def _columns(self) -> tuple[NDArray[np.float64], ...]:
        """Return the columns of `CSV_COLUMNS`."""
        um = (self.x_px * self.mpp, self.y_px * self.mpp)
        return (self.x_px, self.y_px, *um, self.area_um2, self.score)


def read_detections(path: Path | str, mpp: float | None = None) -> Detections:
    """Read the mitoses of a file of points; hard negatives and unsure cells are left out.

    Args:
        path: of the file; see `read_annotations`.
        mpp: um per pixel; None takes what the file says.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not in its format.
        ScaleError: if `mpp` is neither given nor told by the file.
    """
    return Detections.from_annotations(read_annotations(path, mpp), mpp, str(path))
