"""GeoJSON features that QuPath opens as they are: points with a class, and regions."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import UsageError
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import Label
from segmitos.io.points.regions import Polygon, Regions

CLASS_NAMES: dict[Label, str] = {
    "mitosis": "Mitotic figure",
    "non-mitosis": "Hard negative",
    "unsure": "Unsure",
}
_COLORS: dict[Label, tuple[int, int, int]] = {
    "mitosis": (200, 0, 80),
    "non-mitosis": (0, 120, 200),
    "unsure": (230, 160, 0),
}
REGION_COLOR = (40, 90, 200)
REVIEWED_CLASS, EXCLUDED_CLASS = "Region*", "Ignore*"
OBJECT_TYPES = ("annotation", "detection")
_MEASUREMENTS = ("score", "area_um2", "confidence")
_NAMESPACE = uuid.UUID("6f1c1f9e-5d0f-5b0c-9d53-6d1b9d0a2f10")


def point_ids(xy_px: NDArray[np.float64], salt: str) -> list[str]:
    """Return an identity for each position (n, 2) in level-0 pixels.

    It is a UUID5 of the position and `salt` (the image's name), so that the same blob has the same
    id in every run, with every threshold, and in every file.
    """
    seen: dict[str, int] = {}
    ids = []
    for x, y in xy_px.tolist():
        content = f"{salt}|{x!r}|{y!r}"
        seen[content] = seen.get(content, 0) + 1
        ids.append(str(uuid.uuid5(_NAMESPACE, f"{content}|{seen[content]}")))
    return ids


def annotations_content(
    annotations: Annotations,
    object_type: str = "annotation",
    qupath_offset_px: tuple[float, float] = (0.0, 0.0),
    outlines: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Any]:
    """Return a GeoJSON FeatureCollection that QuPath opens as it is.

    Args:
        annotations: points by class, reviewed regions and what is cut out of them.
        object_type: `annotation` (can be edited and classified in QuPath) or `detection` (lighter,
            for tens of thousands).
        qupath_offset_px: where QuPath's frame begins on the slide, in level-0 pixels
            (`openslide.bounds-x`, `-y`); subtracted from every position.
        outlines: of other regions (k, 2), in level-0 pixels, by name (`Hotspot`).

    Returns:
        The collection. Its member `segmitos` keeps `mpp`, `name` and the offset, which GeoJSON
        lacks.

    Raises:
        UsageError: for another object type or an outline without area.
    """
    if object_type not in OBJECT_TYPES:
        raise UsageError(f"object type {object_type!r}: choose 'annotation' or 'detection'")
    offset, name = np.array(qupath_offset_px, np.float64), annotations.name
    placed = annotations.moved(*-offset)
    areas = [region_feature(key, xy - offset, name) for key, xy in (outlines or {}).items()]
    areas += regions_features(placed.regions, name)
    measured = {key: np.asarray(getattr(placed, key)).tolist() for key in _MEASUREMENTS}
    ids = point_ids(annotations.xy, name)
    points = [
        {
            "type": "Feature",
            "id": ids[index],
            "geometry": {"type": "Point", "coordinates": xy},
            "properties": {
                "objectType": object_type,
                "classification": {"name": CLASS_NAMES[label], "color": list(_COLORS[label])},
                "measurements": {
                    key: values[index]
                    for key, values in measured.items()
                    if not math.isnan(values[index])
                },
            },
        }
        for index, (xy, label) in enumerate(zip(placed.xy.tolist(), placed.labels, strict=True))
    ]
    about: dict[str, Any] = {"mpp": annotations.mpp, "name": name}
    if offset.any():
        about["qupath_offset_px"] = offset.tolist()
    return {"type": "FeatureCollection", "segmitos": about, "features": [*areas, *points]}


def region_feature(
    name: str, outline: NDArray[Any] | Polygon, salt: str, class_name: str | None = None
) -> dict[str, Any]:
    """Return a named, locked polygon annotation.

    Args:
        name: shown in QuPath.
        outline: corners (k, 2), closed or not, or a polygon with holes.
        salt: what tells this image's ids from another's.
        class_name: its class; the name itself where none is given.

    Raises:
        UsageError: if a ring has fewer than three corners.
    """
    rings = []
    for ring in outline if isinstance(outline, tuple) else (outline,):
        corners = np.asarray(ring, dtype=np.float64).tolist()
        if len(corners) > 1 and corners[0] == corners[-1]:
            corners = corners[:-1]
        if len(corners) < 3:
            raise UsageError(f"region {name!r} needs at least three corners, not {len(corners)}")
        rings.append([*corners, corners[0]])
    content = rings[0] if len(rings) == 1 else rings
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{salt}|region|{name}|{content!r}")),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "name": name,
            "classification": {"name": class_name or name, "color": list(REGION_COLOR)},
            "isLocked": True,
        },
    }


def collection_text(collection: Mapping[str, Any]) -> str:
    """Return a FeatureCollection with a member `segmitos` as text, one feature a line."""
    lines = ",\n".join(
        json.dumps(feature, allow_nan=False, ensure_ascii=False)
        for feature in collection["features"]
    )
    about = json.dumps(collection["segmitos"], ensure_ascii=False)
    head = f'{{"type": "FeatureCollection", "segmitos": {about}, "features": ['
    return f"{head}\n{lines}\n]}}\n" if lines else f"{head}]}}\n"


def regions_features(regions: Regions | None, salt: str) -> list[dict[str, Any]]:
    """Return reviewed regions as QuPath's `Region*`, what is left out of them as `Ignore*`."""
    if regions is None:
        return []
    included = regions.included or ()
    names = regions.names or ("",) * len(included)
    features = [
        region_feature(name or "Reviewed region", polygon, f"{salt}|{index}", REVIEWED_CLASS)
        for index, (polygon, name) in enumerate(zip(included, names, strict=True))
    ]
    return features + [
        region_feature("Left out", polygon, f"{salt}|out {index}", EXCLUDED_CLASS)
        for index, polygon in enumerate(regions.excluded)
    ]
