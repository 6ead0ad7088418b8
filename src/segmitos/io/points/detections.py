"""Detected mitoses: position, area and score, in and out of files without losing a bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import ScaleError, UsageError
from segmitos.io.files import write_json, write_text
from segmitos.io.geometry import check_mpp
from segmitos.io.json_files import load_json
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import Unclassified
from segmitos.io.points.csv_points import read_csv_annotations
from segmitos.io.points.geojson import Polygons, own_member, read_geojson_annotations
from segmitos.io.points.geojson_features import (
    collection_text,
    point_features,
    point_ids,
    region_feature,
)
from segmitos.io.points.native_json import FORMAT, read_native_annotations

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Detections",
    "geojson_text",
    "read_csv",
    "read_geojson",
    "read_json",
    "write_csv",
    "write_detections_json",
    "write_geojson",
]

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
        mpp: micrometres per level-0 pixel.
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
    def from_annotations(cls, annotations: Annotations, mpp: float | None = None) -> Detections:
        """Make detections of the mitoses of annotations; hard negatives and unsure are left out.

        Raises:
            ScaleError: if `mpp` is neither given nor theirs.
        """
        scale = mpp if mpp is not None else annotations.mpp
        if scale is None:
            raise ScaleError(
                f"{annotations.name} does not say its scale: give um per pixel, e.g. --mpp 0.25"
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

    def to_csv(self) -> str:
        """Return CSV text `x_px,y_px,x_um,y_um,area_um2,score`; an unknown value is left empty."""
        columns = (self.x_px, self.y_px, self.x_px * self.mpp, self.y_px * self.mpp)
        table = np.stack([*columns, self.area_um2, self.score], axis=1).tolist()
        lines = [",".join("" if math.isnan(v) else repr(v) for v in row) for row in table]
        return "\n".join([",".join(CSV_COLUMNS), *lines]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return an object for `json.dumps`; an unknown value is null."""
        table = np.stack([getattr(self, field) for field in _FIELDS], axis=1).tolist()
        return {
            "format": FORMAT,
            "version": 1,
            "name": self.name,
            "mpp": self.mpp,
            "detections": [
                {
                    field: None if math.isnan(value) else value
                    for field, value in zip(_FIELDS, row, strict=True)
                }
                for row in table
            ],
        }

    def to_geojson(
        self,
        object_type: str = "annotation",
        regions: Mapping[str, NDArray[Any]] | None = None,
        qupath_offset_px: tuple[float, float] = (0.0, 0.0),
    ) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection that QuPath opens as it is.

        Args:
            object_type: `annotation` (can be edited and classified in QuPath) or `detection`
                (lighter, for tens of thousands).
            regions: outlines (k, 2) in level-0 pixels to draw with them, by name (`Hotspot`).
            qupath_offset_px: where QuPath's frame begins on the slide, in level-0 pixels
                (`openslide.bounds-x`, `-y`); subtracted from every position.

        Returns:
            The collection. Its member `segmitos` keeps `mpp`, `name` and the offset, which GeoJSON
            lacks.

        Raises:
            UsageError: for another object type or an outline without area.
        """
        if object_type not in ("annotation", "detection"):
            raise UsageError(f"object type {object_type!r}: choose 'annotation' or 'detection'")
        offset = np.array(qupath_offset_px, np.float64)
        rows = np.column_stack([self.xy - offset, self.score, self.area_um2])
        outlines = {key: np.asarray(xy, float) - offset for key, xy in (regions or {}).items()}
        areas = [region_feature(key, xy, self.name) for key, xy in outlines.items()]
        ids = point_ids(self.xy, self.name)
        points = point_features(rows, ("score", "area_um2"), object_type, ids)
        about: dict[str, Any] = {"mpp": self.mpp, "name": self.name}
        if offset.any():
            about["qupath_offset_px"] = offset.tolist()
        return {"type": "FeatureCollection", "segmitos": about, "features": [*areas, *points]}

    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas table with the columns of the CSV.

        Raises:
            UsageError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError("to_dataframe needs pandas: pip install '.[dataframe]'") from error
        columns = (self.x_px, self.y_px, self.x_px * self.mpp, self.y_px * self.mpp)
        values = (*columns, self.area_um2, self.score)
        return pd.DataFrame(dict(zip(CSV_COLUMNS, values, strict=True)))


def write_csv(path: Path, detections: Detections) -> None:
    """Write `Detections.to_csv`. Raises OutputError."""
    write_text(path, detections.to_csv())


def write_detections_json(path: Path, detections: Detections) -> None:
    """Write `Detections.to_json`. Raises OutputError."""
    write_json(path, detections.to_json())


def write_geojson(
    path: Path,
    detections: Detections,
    object_type: str = "annotation",
    regions: Mapping[str, NDArray[Any]] | None = None,
    qupath_offset_px: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Write `geojson_text`. Raises OutputError, UsageError."""
    write_text(path, geojson_text(detections, object_type, regions, qupath_offset_px))


def geojson_text(
    detections: Detections,
    object_type: str = "annotation",
    regions: Mapping[str, NDArray[Any]] | None = None,
    qupath_offset_px: tuple[float, float] = (0.0, 0.0),
) -> str:
    """Return `Detections.to_geojson` as text, one feature a line. Raises UsageError."""
    return collection_text(detections.to_geojson(object_type, regions, qupath_offset_px))


def read_csv(path: Path | str, mpp: float | None = None) -> Detections:
    """Read a CSV of detections; area and score may be missing.

    Without `mpp` the scale is the shortest number that turns every x_px into its x_um.

    Raises:
        InputError: if the file cannot be read.
        DataError: for missing columns or a value that is not a number, with its line.
        ScaleError: if `mpp` is neither given nor told by the file.
    """
    return _detections(read_csv_annotations(Path(path), mpp), Path(path), mpp)


def read_json(path: Path | str) -> Detections:
    """Read what `write_detections_json` wrote. Raises InputError, DataError, ScaleError."""
    path = Path(path)
    return _detections(read_native_annotations(path, load_json(path)), path, None)


def read_geojson(
    path: Path | str,
    mpp: float | None = None,
    unclassified: Unclassified = "refuse",
    polygons: Polygons = "refuse",
) -> Detections:
    """Read the mitoses of a GeoJSON file, ours or QuPath's; see `read_annotations`.

    Measurements `score` and `area_um2` are kept; hard negatives and unsure cells are left out.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not GeoJSON, or holds what cannot be a mitosis.
        ScaleError: if `mpp` is neither given nor in the file.
    """
    path = Path(path)
    content = load_json(path)
    about = own_member(content)
    annotations = read_geojson_annotations(path, content, unclassified, polygons)
    annotations = replace(annotations, name=about.name or path.stem, mpp=mpp or about.mpp)
    return _detections(annotations.moved(*about.qupath_offset_px), path, mpp)


def _detections(annotations: Annotations, path: Path, mpp: float | None) -> Detections:
    if mpp is None and annotations.mpp is None:
        raise ScaleError(f"{path} does not say its scale: give um per pixel, e.g. --mpp 0.25")
    return Detections.from_annotations(annotations, mpp)
