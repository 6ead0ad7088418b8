"""GeoJSON features that QuPath opens as they are: points with a class, and regions."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import UsageError
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


def point_features(
    rows: NDArray[np.float64],
    names: Sequence[str],
    object_type: str,
    ids: Sequence[str],
    labels: Sequence[Label] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a Point feature for each row: x, y, then a measurement per name; nan is left out.

    Without `labels` all are mitoses.
    """
    for index, (x, y, *values) in enumerate(rows.tolist()):
        label = "mitosis" if labels is None else labels[index]
        measured = {
            name: value for name, value in zip(names, values, strict=True) if not math.isnan(value)
        }
        yield {
            "type": "Feature",
            "id": ids[index],
            "geometry": {"type": "Point", "coordinates": [x, y]},
            "properties": {
                "objectType": object_type,
                "classification": {"name": CLASS_NAMES[label], "color": list(_COLORS[label])},
                "measurements": measured,
            },
        }


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
