"""What a data set holds and what looks wrong in it; and its conversion to points."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import DataError, InputError, OutputError, ScaleError
from segmitos.io.datasets import Case
from segmitos.io.files import write_text
from segmitos.io.slide import Slide
from segmitos.report.contact_sheet import contact_sheet

__all__ = ["contact_sheet", "convert_dataset", "describe", "find_problems"]

_DUPLICATE_UM = 2.0
_CENTRE_PX = 2.0


def describe(cases: Sequence[Case]) -> dict[str, Any]:
    """Count what a data set holds: a JSON-able dict.

    Sizes that the format does not tell are read from the images' headers.
    """
    sizes: Counter[str] = Counter()
    for case in cases:
        size = case.size_px or _size(case.image)
        sizes["unknown" if size is None else f"{size[0]} x {size[1]}"] += 1
    scales = Counter("unknown" if c.mpp is None else f"{c.mpp:g}" for c in cases)
    per_slide: Counter[str] = Counter()
    for case in cases:
        per_slide[case.slide] += len(case.mitoses_xy)
    summary = {
        "datasets": ", ".join(sorted({case.dataset for case in cases})),
        "cases": len(cases),
        "slides": len(per_slide),
        "patients": len({case.patient or case.slide for case in cases}),
        "mitoses": int(sum(len(case.mitoses_xy) for case in cases)),
        "hard_negatives": int(sum(len(case.hard_negatives_xy) for case in cases)),
        "masks": sum(case.mask is not None for case in cases),
        "empty_cases": sum(len(case.mitoses_xy) == 0 for case in cases),
        "images_missing": sum(not case.image.exists() for case in cases),
        "mitoses_by_slide": dict(sorted(per_slide.items())),
        "sizes_px": dict(sizes.most_common()),
        "mpp": dict(scales.most_common()),
        "scanners": dict(Counter(case.scanner or "unknown" for case in cases).most_common()),
    }
    tumours = Counter(case.tumour for case in cases if case.tumour)
    return summary | ({"tumours": dict(tumours.most_common())} if tumours else {})


def _size(image: Path) -> tuple[int, int] | None:
    try:
        with Slide.open(image) as slide:
            return slide.width, slide.height
    except InputError:
        return None


def find_problems(cases: Sequence[Case]) -> list[str]:
    """List what looks wrong, a line each; every image that is there is read to its end.

    Missing or damaged images and masks, points outside, two labels within 2 um of each other,
    crops without a mitosis in their middle, an unknown scale.
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
        if case.mpp is None:
            problems.append(f"{case.name}: um per pixel unknown; give --mpp")
        problems += _duplicates(case)
    return problems


def _outside(case: Case, size: tuple[int, int]) -> list[str]:
    problems = []
    for kind, points in (("mitosis", case.mitoses_xy), ("hard negative", case.hard_negatives_xy)):
        inside = ((points >= -0.5) & (points <= np.array(size) - 0.5)).all(axis=1)
        problems += [
            f"{case.name}: {kind} at ({x:g}, {y:g}) is outside {size[0]} x {size[1]} px"
            for x, y in points[~inside]
        ]
    if case.centered_crop:
        off = np.abs(case.mitoses_xy - np.array(size) / 2).max(axis=1)
        if not (off <= _CENTRE_PX).any():
            problems.append(f"{case.name}: no mitosis lies in the middle of this crop")
    return problems


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
    points = np.concatenate([case.mitoses_xy, case.hard_negatives_xy])
    if len(points) < 2 or case.mpp is None:
        return []
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(_DUPLICATE_UM / case.mpp, output_type="ndarray")
    first_other = len(case.mitoses_xy)
    problems = []
    for a, b in sorted(map(tuple, np.sort(pairs, axis=1).tolist())):
        kinds = ["mitosis" if index < first_other else "hard negative" for index in (a, b)]
        problems.append(
            f"{case.name}: {kinds[0]} at ({points[a][0]:g}, {points[a][1]:g}) and {kinds[1]} at "
            f"({points[b][0]:g}, {points[b][1]:g}) are within {_DUPLICATE_UM:g} um"
        )
    return problems


def convert_dataset(cases: Sequence[Case], out: Path) -> int:
    """Write cases as a `points` folder: each image beside a CSV of its points.

    Images are copied as they are; a slide's images lie in a folder named after it, with their
    scale in `mpp.txt`. Confidence and pixel masks are not part of the format.

    Returns:
        The number of images written.

    Raises:
        DataError: for an image that is missing, two images of one name, masses (which need radii).
        OutputError: where `out` cannot be written.
        ScaleError: where the images of one slide differ in scale.
    """
    scales: dict[Path, float | None] = {}
    targets: dict[Path, Case] = {}
    for case in cases:
        if case.radii_px is not None:
            raise DataError(f"{case.name} holds masses; their radii cannot be written as points")
        folder = out / case.slide.replace("/", "_")
        if scales.setdefault(folder, case.mpp) != case.mpp:
            raise ScaleError(
                f"the images of slide {case.slide} differ in scale ({scales[folder]} and "
                f"{case.mpp} um/px); convert them apart with --cases, or give one --mpp"
            )
        stem = case.name.rpartition("/")[2].removesuffix(case.image.suffix)
        other = targets.setdefault(folder / stem, case)
        if other is not case:
            raise DataError(f"{case.image} and {other.image} would both become {folder / stem}")
    for target, case in targets.items():
        _copy(case.image, target.parent / f"{target.name}{case.image.suffix}")
        lines = ["x_px,y_px,label"]
        kinds = (("mitosis", case.mitoses_xy), ("non-mitosis", case.hard_negatives_xy))
        for label, points in kinds:
            lines += [f"{x!r},{y!r},{label}" for x, y in points.tolist()]
        write_text(target.parent / f"{target.name}.csv", "\n".join(lines) + "\n")
    for folder, mpp in scales.items():
        if mpp is not None:
            write_text(folder / "mpp.txt", f"{mpp!r}\n")
    return len(targets)


def _copy(image: Path, target: Path) -> None:
    """Copy a file whole or not at all; slides are too large to be held in memory."""
    temporary: str | None = None
    try:
        source = image.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {image}: {error.strerror}") from error
    try:
        with source:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            with os.fdopen(handle, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
