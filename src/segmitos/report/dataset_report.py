"""What a data set holds, and what looks wrong in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError
from segmitos.io.datasets import Case
from segmitos.io.datasets.table import image_size
from segmitos.io.pairs import pairs_within

_DUPLICATE_UM = 2.0
_CENTER_PX = 2.0


def describe(cases: Sequence[Case]) -> dict[str, Any]:
    """Count what a data set holds: a JSON-able dict.

    Sizes that the format does not tell are read from the images' headers.
    """
    sizes: Counter[str] = Counter()
    areas: list[float | None] = []
    for case in cases:
        size = case.size_px or _size(case.image)
        sizes["unknown" if size is None else f"{size[0]} x {size[1]}"] += 1
        areas.append(_reviewed_mm2(case, size))
    scales = Counter("unknown" if c.mpp is None else f"{c.mpp:g}" for c in cases)
    per_slide: Counter[str] = Counter()
    for case in cases:
        per_slide[case.slide] += len(case.mitoses_xy)
    summary = {
        "datasets": ", ".join(sorted({case.dataset for case in cases})),
        "cases": len(cases),
        "slides": len(per_slide),
        "patients": len({case.group for case in cases}),
        "mitoses": int(sum(len(case.mitoses_xy) for case in cases)),
        "hard_negatives": int(sum(len(case.hard_negatives_xy) for case in cases)),
        "unsure": int(sum(len(case.unsure_xy) for case in cases)),
        "reviewed_mm2": _total(areas),
        "cases_with_regions": sum(case.regions is not None for case in cases),
        "masks": sum(case.mask is not None for case in cases),
        "empty_cases": sum(len(case.mitoses_xy) == 0 for case in cases),
        "images_missing": sum(not case.image.exists() for case in cases),
        "mitoses_by_slide": dict(sorted(per_slide.items())),
        "sizes_px": dict(sizes.most_common()),
        "mpp": dict(scales.most_common()),
        "scanners": dict(Counter(case.scanner or "unknown" for case in cases).most_common()),
        "laboratories": dict(Counter(case.laboratory or "unknown" for case in cases).most_common()),
    }
    tumours = Counter(case.tumour for case in cases if case.tumour)
    return summary | ({"tumours": dict(tumours.most_common())} if tumours else {})


def _reviewed_mm2(case: Case, size: tuple[int, int] | None) -> float | None:
    """Return the area in which every mitosis of a case is marked, None where it is unknown."""
    if size is None or case.mpp is None:
        return None
    area_px2 = float(size[0] * size[1]) if case.regions is None else case.regions.area_px2(*size)
    return area_px2 * case.mpp**2 / 1e6


def _total(areas: Sequence[float | None]) -> float | None:
    """Return the sum, None where a part of it is unknown."""
    known = [area for area in areas if area is not None]
    return round(sum(known), 4) if len(known) == len(areas) else None


def _size(image: Path) -> tuple[int, int] | None:
    try:
        return image_size(image)
    except DataError:
        return None


def find_problems(cases: Sequence[Case]) -> list[str]:
    """List what looks wrong, a line each; every image that is there is read to its end.

    Missing or damaged images and masks, points outside the image, mitoses outside the reviewed
    regions, two labels within 2 um of each other, crops without a mitosis in their middle, an
    unknown scale.
    """
    problems = []
    missing = [case.image for case in cases if not case.image.exists()]
    if len(missing) == len(cases) > 1:
        problems.append(f"none of the {len(cases)} images is there, e.g. {missing[0]}")
    for case in cases:
        size = case.size_px
        if not case.image.exists():
            if len(missing) < len(cases) or len(cases) == 1:
                problems.append(f"{case.name}: image {case.image} is missing")
        else:
            try:
                with case.open_image() as slide:
                    size = (slide.width, slide.height)
                    problems += [f"{case.name}: {warning}" for warning in slide.warnings]
                    slide.thumbnail(256)
            except InputError as error:
                problems.append(f"{case.name}: {error}")
        if size is not None:
            problems += _outside(case, size)
            problems += _mask_problems(case, size)
            if case.regions is not None and (problem := case.regions.misplaced(*size)):
                problems.append(f"{case.name}: {problem}")
        problems += _duplicates(case)
    return [*_unknown_scale(cases), *problems]


def _unknown_scale(cases: Sequence[Case]) -> list[str]:
    """Say it once for all images: one option mends it."""
    unknown = [case.name for case in cases if case.mpp is None]
    if not unknown:
        return []
    which = unknown[0]
    if len(unknown) > 1:
        which = f"{len(unknown)} of {len(cases)} images, e.g. {unknown[0]}"
    return [f"{which}: um per pixel unknown; give --mpp"]


def _outside(case: Case, size: tuple[int, int]) -> list[str]:
    problems = []
    for kind, points in _labeled(case):
        inside = ((points >= -0.5) & (points <= np.array(size) - 0.5)).all(axis=1)
        problems += [
            f"{case.name}: {kind} at ({x:g}, {y:g}) is outside {size[0]} x {size[1]} px"
            for x, y in points[~inside]
        ]
    beyond = int((~case.is_reviewed(case.mitoses_xy)).sum())
    if beyond:
        noun = "mitosis lies" if beyond == 1 else "mitoses lie"
        problems.append(f"{case.name}: {beyond} {noun} outside the reviewed regions, unused")
    if case.centered_crop:
        off = np.abs(case.mitoses_xy - np.array(size) / 2).max(axis=1)
        if not (off <= _CENTER_PX).any():
            problems.append(f"{case.name}: no mitosis lies in the middle of this crop")
    return problems


def _labeled(case: Case) -> list[tuple[str, NDArray[np.float64]]]:
    """Return the points of a case by what they are."""
    return [
        ("mitosis", case.mitoses_xy),
        ("hard negative", case.hard_negatives_xy),
        ("unsure cell", case.unsure_xy),
    ]


def _mask_problems(case: Case, size: tuple[int, int]) -> list[str]:
    if case.mask is None:
        return []
    if not case.mask.exists():
        return [f"{case.name}: mask {case.mask} is missing"]
    found = _size(case.mask)
    if found is None:
        return [f"{case.name}: mask {case.mask} cannot be read"]
    if found != size:
        return [
            f"{case.name}: mask {case.mask} has {found[0]} x {found[1]} px, "
            f"the image {size[0]} x {size[1]}"
        ]
    return []


def _duplicates(case: Case) -> list[str]:
    if case.mpp is None:
        return []
    points = np.concatenate([xy for _, xy in _labeled(case)])
    kinds = [kind for kind, xy in _labeled(case) for _ in xy]
    if not np.isfinite(points).all():
        return [f"{case.name}: a position is not a number"]
    near = pairs_within(points, points, _DUPLICATE_UM / case.mpp)
    pairs = zip(near.first.tolist(), near.second.tolist(), strict=True)
    return [
        f"{case.name}: {kinds[a]} at ({points[a][0]:g}, {points[a][1]:g}) and {kinds[b]} at "
        f"({points[b][0]:g}, {points[b][1]:g}) are within {_DUPLICATE_UM:g} um"
        for a, b in sorted(pair for pair in pairs if pair[0] < pair[1])
    ]
