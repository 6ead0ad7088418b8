"""Detected mitoses: position, area and score, in and out of files without losing a bit."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError, ScaleError, UsageError
from segmitos.io.files import write_json, write_text
from segmitos.io.geometry import check_mpp
from segmitos.io.points.classes import Unclassified, classify_marks, parse_number
from segmitos.io.points.geojson import (
    Polygons,
    load_json,
    point_features,
    point_ids,
    region_feature,
)

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
_JSON_FORMAT = "segmitos detections"
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

    def __len__(self) -> int:
        return len(self.x_px)

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
            "format": _JSON_FORMAT,
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
    ) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection that QuPath opens as it is.

        Args:
            object_type: `annotation` (can be edited and classified in QuPath) or `detection`
                (lighter, for tens of thousands).
            regions: outlines (k, 2) in level-0 pixels to draw with them, by name (`Hotspot`).

        Returns:
            The collection. Its member `segmitos` keeps `mpp` and `name`, which GeoJSON lacks.

        Raises:
            UsageError: for another object type or an outline without area.
        """
        if object_type not in ("annotation", "detection"):
            raise UsageError(f"object type {object_type!r}: choose 'annotation' or 'detection'")
        rows = np.stack([self.x_px, self.y_px, self.score, self.area_um2], axis=1)
        areas = [region_feature(key, xy, self.name) for key, xy in (regions or {}).items()]
        marks = point_features(
            rows, ("score", "area_um2"), object_type, point_ids(self.xy, self.name)
        )
        return {
            "type": "FeatureCollection",
            "segmitos": {"mpp": self.mpp, "name": self.name},
            "features": [*areas, *marks],
        }

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
) -> None:
    """Write `geojson_text`. Raises OutputError, UsageError."""
    write_text(path, geojson_text(detections, object_type, regions))


def geojson_text(
    detections: Detections,
    object_type: str = "annotation",
    regions: Mapping[str, NDArray[Any]] | None = None,
) -> str:
    """Return `Detections.to_geojson` as text, one feature a line. Raises UsageError."""
    collection = detections.to_geojson(object_type, regions)
    lines = ",\n".join(
        json.dumps(feature, allow_nan=False, ensure_ascii=False)
        for feature in collection["features"]
    )
    about = json.dumps(collection["segmitos"], ensure_ascii=False)
    head = f'{{"type": "FeatureCollection", "segmitos": {about}, "features": ['
    return f"{head}\n{lines}\n]}}\n" if lines else f"{head}]}}\n"


def read_csv(path: Path | str, mpp: float | None = None) -> Detections:
    """Read a CSV of detections; area and score may be missing.

    Without `mpp` the scale is the shortest number that turns every x_px into its x_um.

    Raises:
        InputError: if the file cannot be read.
        DataError: for missing columns or a value that is not a number, with its line.
        ScaleError: if `mpp` is neither given nor told by the file.
    """
    path = Path(path)
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if not {"x_px", "y_px"} <= set(header):
        raise DataError(f"{path}: the first line must name the columns {','.join(CSV_COLUMNS)}")
    columns: dict[str, list[float]] = {name: [] for name in CSV_COLUMNS}
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: {len(row)} values for {len(header)} columns")
        cells = dict(zip(header, row, strict=True))
        for name, values in columns.items():
            required = name in ("x_px", "y_px")
            values.append(
                parse_number(cells.get(name, ""), name, f"{path}, line {number}", required)
            )
    x, y, x_um, y_um, area, score = (np.array(columns[name], dtype=float) for name in CSV_COLUMNS)
    if mpp is None:
        mpp = _scale_between(np.concatenate([x, y]), np.concatenate([x_um, y_um]), path)
    return Detections(x, y, area, score, mpp, path.stem)


def read_json(path: Path | str) -> Detections:
    """Read what `write_detections_json` wrote. Raises InputError, DataError, ScaleError."""
    path = Path(path)
    content = load_json(path)
    if not isinstance(content, dict) or content.get("format") != _JSON_FORMAT:
        raise DataError(f"{path} is not a SegMitos JSON file (format {_JSON_FORMAT!r})")
    if content.get("version") != 1:
        raise DataError(f"{path}: version {content.get('version')!r} is not known; expected 1")
    items = content.get("detections")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{path}: 'detections' must be an array of objects")
    columns: list[list[float]] = []
    for field in _FIELDS:
        values = [item.get(field) for item in items]
        for number, value in enumerate(values, start=1):
            missing = value is None and field not in ("x_px", "y_px")
            if not missing and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise DataError(f"{path}, detection {number}: {field} {value!r} is not a number")
        columns.append([math.nan if value is None else float(value) for value in values])
    x, y, area, score = (np.array(column, dtype=float) for column in columns)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{path}: positions must be finite")
    name = content.get("name", "")
    return Detections(x, y, area, score, content.get("mpp", math.nan), str(name))


def read_geojson(
    path: Path | str,
    mpp: float | None = None,
    unclassified: Unclassified = "refuse",
    polygons: Polygons = "refuse",
) -> Detections:
    """Read the mitoses of a GeoJSON file, ours or QuPath's; see `read_points` for the options.

    Measurements `score` and `area_um2` are kept; objects of hard-negative classes are left out.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not GeoJSON, or holds what cannot be a mitosis.
        ScaleError: if `mpp` is neither given nor in the file.
    """
    from segmitos.io.points.geojson import read_marks

    path = Path(path)
    content = load_json(path)
    about = content.get("segmitos") if isinstance(content, dict) else None
    about = about if isinstance(about, dict) else {}
    marks, _ = classify_marks(read_marks(path, content, polygons), unclassified)
    scale = mpp if mpp is not None else about.get("mpp")
    if scale is None:
        raise ScaleError(f"{path} does not say its scale: give um per pixel, e.g. --mpp 0.25")
    measured = [
        [mark.measurements.get(name, math.nan) for mark in marks] for name in ("area_um2", "score")
    ]
    return Detections(
        np.array([mark.x_px for mark in marks], dtype=float),
        np.array([mark.y_px for mark in marks], dtype=float),
        np.array(measured[0], dtype=float),
        np.array(measured[1], dtype=float),
        scale,
        str(about.get("name", path.stem)),
    )


def _scale_between(px: NDArray[np.float64], um: NDArray[np.float64], path: Path) -> float:
    """Return the shortest decimal mpp with px * mpp == um for every value."""
    used = np.isfinite(um) & (px != 0)
    if used.any():
        px, um = px[used], um[used]
        widest = int(np.argmax(np.abs(px)))
        ratio = float(um[widest] / px[widest])
        neighbours = [ratio, math.nextafter(ratio, 0), math.nextafter(ratio, math.inf)]
        for candidate in [*(float(f"{ratio:.{digits}g}") for digits in range(1, 17)), *neighbours]:
            if np.array_equal(px * candidate, um):
                return candidate
        if np.allclose(px * ratio, um, rtol=1e-6, atol=1e-3):
            return ratio
        raise DataError(f"{path}: x_um and y_um are not one multiple of x_px and y_px")
    raise ScaleError(f"{path} does not say its scale: give um per pixel, e.g. --mpp 0.25")
