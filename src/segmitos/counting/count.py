"""What is said of one image as a whole: count, density, hotspot, scores, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.grading import (
    MitoticScore,
    Unavailable,
    check_field_diameter,
    nottingham_score,
    who_2019_score,
)
from segmitos.counting.intervals import (
    CountInterval,
    ValidationCounts,
    count_interval,
    score_is_uncertain,
)
from segmitos.counting.windows import (
    NO_MITOSES,
    SHAPES,
    Hotspot,
    count_in_fields,
    hotspot,
)
from segmitos.errors import UsageError
from segmitos.io.arguments import number_of
from segmitos.io.geometry import as_points, check_mpp

if TYPE_CHECKING:
    from segmitos.detection.tissue import TissueMask

DEFAULT_FIELD_MM = 0.55
# A cell cut by the edge of an image may have its center this far off it.
_EDGE_UM = 10.0
_FROM_MODEL = (
    "95 % interval of the expected count in such a window, from the model's precision and recall "
    "on validation cases and from chance (how mitoses fall into a window); it does not cover "
    "slides unlike the validation cases."
)
_CHANCE_ONLY = (
    "95 % interval of the expected count in such a window, from chance alone: the model file "
    "states no validation counts."
)


@dataclass(frozen=True)
class CountSettings:
    """How mitoses are counted once they are found. Changing it takes no network.

    Raises:
        UsageError: for a value that cannot be.
    """

    hotspot_area_mm2: float = 2.0
    """Area of the hotspot window; 2 mm2 is the WHO's."""
    hotspot_shape: str = "square"
    """`square`, `circle` or `box` (4:3)."""
    field_diameter_mm: float = DEFAULT_FIELD_MM
    """Diameter of the microscope's field, 0.40 to 0.69 mm, for the Nottingham score."""

    def __post_init__(self) -> None:
        if self.hotspot_shape not in SHAPES:
            raise UsageError(
                f"hotspot shape {self.hotspot_shape!r}: choose one of {', '.join(SHAPES)}"
            )
        if not 0.01 <= number_of(self.hotspot_area_mm2, "hotspot_area_mm2") <= 1000:
            raise UsageError(
                f"hotspot area {self.hotspot_area_mm2} mm2 must be from 0.01 to 1000 mm2"
            )
        check_field_diameter(number_of(self.field_diameter_mm, "field_diameter_mm"))


@dataclass(frozen=True, kw_only=True)
class ScoredWindow(MitoticScore):
    """A mitotic score in one window, with its interval.

    Attributes:
        where: `hotspot` or `ten fields`.
        name: system, window and basis in words.
        interval: around the count.
        uncertain: whether the score is another at either end of the interval.
        cutoffs: counts of score 1 / 2 / 3, in words.
        within: scores within the interval, in words.
    """

    where: str
    name: str
    interval: CountInterval
    uncertain: bool
    cutoffs: str
    within: str


@dataclass(frozen=True)
class Scores:
    """Scores of an image by every system that its windows allow."""

    systems: tuple[ScoredWindow, ...]
    uncertain: bool
    interval_note: str

    def of(self, where: str) -> ScoredWindow | None:
        """Return the score of `hotspot` or of `ten fields`, None where there is none."""
        return next((entry for entry in self.systems if entry.where == where), None)


@dataclass(frozen=True, kw_only=True)
class Count:
    """Mitoses of one image, counted.

    Attributes:
        count: mitoses in all.
        tissue_area_mm2: area of tissue.
        density_per_mm2: count / area; None without tissue.
        hotspot: window with the most mitoses, None where there is none.
        hotspot_reason: why there is none.
        fields: window of the area of ten high-power fields with the most mitoses.
        fields_reason: why there is none.
        score: None where neither window can be scored.
        score_reason: why.
        notes: what a reader must know of these numbers, in words.
    """

    count: int
    tissue_area_mm2: float
    density_per_mm2: float | None
    hotspot: Hotspot | None
    hotspot_reason: str | None = None
    fields: Hotspot | None
    fields_reason: str | None = None
    score: Scores | None
    score_reason: str | None = None
    notes: tuple[str, ...] = field(default=())


Windows = tuple[Hotspot | None, Hotspot | None]
"""Hotspot and ten fields."""
IntervalOf = Callable[[int, Hotspot | None], CountInterval]
"""Gives the interval of a count in a window; None stands for any window, of no mitoses."""


def count(
    points_xy: NDArray[Any],
    mpp: float,
    width_px: int,
    height_px: int,
    tissue: TissueMask | None = None,
    settings: CountSettings | None = None,
    validation: ValidationCounts | None = None,
    interval_of: IntervalOf | None = None,
    interval_note: str | None = None,
    fixed: Windows = (None, None),
) -> Count:
    """Count mitoses, find the hotspot and score it.

    Args:
        points_xy: mitoses (n, 2), level-0 pixels.
        mpp: micrometers per level-0 pixel.
        width_px: of the image.
        height_px: of the image.
        tissue: mask with its area; None takes the whole image for tissue.
        settings: of the windows; None takes the defaults.
        validation: how often the model errs, where known.
        interval_of: gives the interval of a window's count, where it is not that of a model's
            count with `validation`.
        interval_note: what the interval covers, in words, with `interval_of`.
        fixed: hotspot and field window to count in, in place of a search; None in it is searched.

    Raises:
        UsageError: for a size that is not positive, or positions that are not (n, 2), finite and
            on the image; ScaleError: for an impossible scale.
    """
    settings = settings or CountSettings()
    if width_px <= 0 or height_px <= 0:
        raise UsageError(f"an image of {width_px} x {height_px} px: both must be above 0")
    check_mpp(mpp, "count")
    points = as_points(points_xy)
    _check_on_image(points, mpp, width_px, height_px)
    area = width_px * height_px * mpp**2 / 1e6 if tissue is None else tissue.area_mm2
    windows = find_windows(points, mpp, width_px, height_px, settings, tissue, fixed)
    interval = interval_of or (lambda number, window: count_interval(number, validation))
    systems = []
    for where, window in windows.items():
        number = count_in(window)
        if number is not None:
            scored = score_in(where, number, settings)
            systems.append(_scored(where, scored, interval(number, window or None)))
    found, fields = windows.values()
    note = interval_note or (_FROM_MODEL if validation else _CHANCE_ONLY)
    return Count(
        count=len(points),
        tissue_area_mm2=area,
        density_per_mm2=len(points) / area if area > 0 else None,
        hotspot=found or None,
        hotspot_reason=_reason_of(found),
        fields=fields or None,
        fields_reason=_reason_of(fields),
        score=Scores(tuple(systems), any(entry.uncertain for entry in systems), note)
        if systems
        else None,
        score_reason=None if systems else _reason_of(found),
        notes=tuple(_notes(area, found, fields)),
    )


def _check_on_image(points: NDArray[np.float64], mpp: float, width_px: int, height_px: int) -> None:
    """Refuse positions off the image, of another one maybe, or with y before x."""
    slack = max(1.0, _EDGE_UM / mpp)
    off = ((points < -slack) | (points > np.array([width_px, height_px]) + slack)).any(axis=1)
    if off.any():
        x, y = points[off][0]
        raise UsageError(
            f"{int(off.sum())} of {len(points)} positions lie off the image of {width_px} x "
            f"{height_px} px, the first at ({x:g}, {y:g}); give x before y, in level-0 pixels"
        )


def find_windows(
    points: NDArray[np.float64],
    mpp: float,
    width_px: int,
    height_px: int,
    settings: CountSettings,
    tissue: TissueMask | None = None,
    fixed: Windows = (None, None),
) -> dict[str, Hotspot | Unavailable]:
    """Return `hotspot` and `ten fields`: those that are fixed, with their count, else searched."""
    place = (points, mpp, width_px, height_px)
    held, held_fields = (one and replace(one, count=int(one.holds(points).sum())) for one in fixed)
    return {
        "hotspot": held
        or hotspot(*place, settings.hotspot_area_mm2, settings.hotspot_shape, tissue),
        "ten fields": held_fields
        or count_in_fields(*place, settings.field_diameter_mm, tissue=tissue),
    }


def count_in(found: Hotspot | Unavailable) -> int | None:
    """Return the count in a window; none found where a window fits is a count too."""
    if isinstance(found, Hotspot):
        return found.count
    return 0 if found is NO_MITOSES else None


def score_in(where: str, number: int, settings: CountSettings) -> MitoticScore:
    """Return the score of a count in the `hotspot` or in `ten fields`."""
    if where == "hotspot":
        return who_2019_score(number, settings.hotspot_area_mm2)
    return nottingham_score(number, settings.field_diameter_mm)


def known_validation(stated: Mapping[str, Any] | None) -> ValidationCounts | None:
    """Return the validation counts that a model states, None where it does not."""
    if not stated or not all(key in stated for key in ("tp", "fp", "fn")):
        return None
    return ValidationCounts(**{key: int(stated[key]) for key in ("tp", "fp", "fn")})


def _reason_of(found: Hotspot | Unavailable) -> str | None:
    return found.reason if isinstance(found, Unavailable) else None


def _notes(
    area_mm2: float, found: Hotspot | Unavailable, fields: Hotspot | Unavailable
) -> list[str]:
    notes = []
    if area_mm2 == 0:
        notes.append("No tissue was found, so there is no density.")
    elif isinstance(found, Unavailable):
        notes.append(f"No hotspot: {found.reason}.")
    if (
        area_mm2 > 0
        and isinstance(fields, Unavailable)
        and count_in(fields) is None
        and count_in(found) is not None
    ):
        notes.append(f"No score from ten fields: {fields.reason}.")
    return notes


def _scored(where: str, score: MitoticScore, interval: CountInterval) -> ScoredWindow:
    low, high = interval.combined
    scores = sorted({score.of(round(low)), score.score, score.of(round(high))})
    spread = " to ".join(map(str, dict.fromkeys((scores[0], scores[-1]))))
    least, most = score.one_up_to + 1, score.three_from - 1
    middle = "none" if least > most else str(least) if least == most else f"{least} to {most}"
    return ScoredWindow(
        **asdict(score),
        where=where,
        name=f"{score.system}, {where}: {score.basis}",
        interval=interval,
        uncertain=score_is_uncertain(score, interval),
        cutoffs=f"up to {score.one_up_to} / {middle} / {score.three_from} and more",
        within=f"{spread} (count {low:.1f} to {high:.1f})",
    )
