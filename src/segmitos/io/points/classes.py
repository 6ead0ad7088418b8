"""The class names of mitoses and look-alikes, as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from typing import Literal

from segmitos.errors import DataError, UsageError
from segmitos.io.points.geojson import Mark

Unclassified = Literal["refuse", "mitosis", "ignore"]

# Compared without case; plural, hyphen and underscore make no difference.
MITOSIS_CLASSES = frozenset(
    {"mitotic figure", "mitosis", "mitoses", "mitotic", "mitotic cell", "mf"}
)
HARD_NEGATIVE_CLASSES = frozenset(
    {
        "hard negative",
        "non mitotic figure",
        "not mitotic figure",
        "non mitosis",
        "non mitoses",
        "not mitosis",
        "nonmitosis",
        "nonmitotic figure",
        "non mitotic",
        "non mitotic cell",
        "hard negative imposter",
        "hard negative look alike",
        "imposter",
        "impostor",
        "look alike",
        "lookalike",
    }
)


def classify_marks(
    marks: Iterable[Mark],
    unclassified: Unclassified = "refuse",
    mitosis_classes: Collection[str] = MITOSIS_CLASSES,
    hard_negative_classes: Collection[str] = HARD_NEGATIVE_CLASSES,
) -> tuple[list[Mark], list[Mark]]:
    """Split marks into mitoses and hard negatives by class. Raises DataError for other classes.

    QuPath's `Ignore*` is left out.
    """
    if unclassified not in ("refuse", "mitosis", "ignore"):
        raise UsageError(f"unclassified={unclassified!r}: choose 'refuse', 'mitosis' or 'ignore'")
    positive, negative = normal_names(mitosis_classes), normal_names(hard_negative_classes)
    mitoses: list[Mark] = []
    negatives: list[Mark] = []
    for mark in marks:
        if mark.kind is None:
            if unclassified == "refuse":
                raise DataError(
                    f"{mark.where} has no class: classify it as 'Mitotic figure' or "
                    "'Hard negative', or ask for unclassified='mitosis' or 'ignore'"
                )
            if unclassified == "mitosis":
                mitoses.append(mark)
        elif plain_name(mark.kind) in positive:
            mitoses.append(mark)
        elif plain_name(mark.kind) in negative:
            negatives.append(mark)
        elif plain_name(mark.kind) != "ignore*":
            raise DataError(
                f"{mark.where}: class {mark.kind!r} is neither mitosis nor hard negative; rename "
                "it 'Mitotic figure' or 'Hard negative', or 'Ignore*' to leave it out"
            )
    return mitoses, negatives


def parse_number(text: str, name: str, where: str, required: bool = True) -> float:
    """Parse a cell as a finite number; empty is nan where not required. Raises DataError."""
    cell = text.strip()
    if not cell and not required:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} {text!r} is not a number")
    return value


def plain_name(name: str) -> str:
    """Return a class name without case, plural, hyphen and underscore."""
    words = " ".join(name.lower().replace("-", " ").replace("_", " ").split())
    return re.sub(r"(figure|cell|negative|imposter|impostor|alike)s$", r"\1", words)


def normal_names(names: Collection[str]) -> set[str]:
    """Return class names as `plain_name` has them."""
    return {plain_name(name) for name in names}
