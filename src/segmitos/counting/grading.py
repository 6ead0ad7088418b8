"""From a count to a score: the Nottingham table, the WHO's form per mm2, and the grade.

Sources. Elston CW, Ellis IO. Pathological prognostic factors in breast cancer I. Histopathology
1991;19:403-410 (the score and its dependence on the field). The table by field diameter is that of
the NHS Breast Screening Programme and the Royal College of Pathologists (Pathology reporting of
breast disease, appendix on grading). WHO Classification of Tumours, Breast Tumours, 5th ed. 2019,
gives the count per mm2: up to 3, 4 to 7, 8 and more (so also the HL7 FHIR code system
`oncology-MitoticCountScoreCS`). Cree IA et al., Mod Pathol 2021;34:1651-1657: report per mm2, with
the area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from segmitos.errors import UsageError

FIELDS = 10
# Field diameter in hundredths of a mm: (most for score 1, least for score 3), in ten fields.
NOTTINGHAM_TABLE: dict[int, tuple[int, int]] = {
    40: (4, 10),
    41: (4, 10),
    42: (5, 11),
    43: (5, 11),
    44: (5, 12),
    45: (5, 12),
    46: (6, 13),
    47: (6, 13),
    48: (6, 14),
    49: (6, 14),
    50: (7, 15),
    51: (7, 15),
    52: (7, 16),
    53: (8, 17),
    54: (8, 17),
    55: (8, 18),
    56: (8, 18),
    57: (9, 19),
    58: (9, 20),
    59: (9, 20),
    60: (10, 21),
    61: (10, 22),
    62: (11, 23),
    63: (11, 23),
    64: (11, 24),
    65: (12, 25),
    66: (12, 25),
    67: (12, 26),
    68: (13, 27),
    69: (13, 28),
}
# Densities per mm2 behind every row of the table, and behind the WHO's 3 and 8 for 1 mm2.
_ONE_UP_TO, _TWO_UP_TO = 3.65, 7.30


@dataclass(frozen=True)
class Unavailable:
    """Something that cannot be computed, and why. It is false, so `if result:` asks for it."""

    reason: str

    def __bool__(self) -> Literal[False]:
        return False


@dataclass(frozen=True)
class MitoticScore:
    """A mitotic score with the cut-offs it rests on.

    Attributes:
        system: `Nottingham` or `WHO 2019`.
        score: 1, 2 or 3.
        count: of mitoses.
        area_mm2: in which they were counted.
        density_per_mm2: count / area.
        one_up_to: largest count with score 1.
        three_from: smallest count with score 3.
        basis: field and source, in words.
    """

    system: str
    score: int
    count: int
    area_mm2: float
    density_per_mm2: float
    one_up_to: int
    three_from: int
    basis: str

    def of(self, count: float) -> int:
        """Return the score of another count in the same area."""
        return 1 if count <= self.one_up_to else 3 if count >= self.three_from else 2


def field_area_mm2(diameter_mm: float) -> float:
    """Return the area of one round field of view."""
    return math.pi * (diameter_mm / 2) ** 2


def check_field_diameter(value_mm: float) -> None:
    """Refuse a field diameter that the Nottingham table does not cover. Raises UsageError."""
    if not 0.40 - 1e-9 <= value_mm <= 0.69 + 1e-9:
        raise UsageError(
            f"field diameter {value_mm} mm: the Nottingham table covers 0.40 to 0.69 mm; "
            "use the score per mm2 for other areas"
        )


def nottingham_score(count: int, field_diameter_mm: float) -> MitoticScore:
    """Score a count in ten high power fields (Elston and Ellis 1991).

    A diameter of whole hundredths takes its row of the published table; between rows the densities
    that reproduce every row (up to 3.65 per mm2, above 7.30 per mm2) give the cut-offs.

    Args:
        count: in ten fields.
        field_diameter_mm: 0.40 to 0.69.

    Raises:
        UsageError: for a diameter outside the table or a negative count.
    """
    check_field_diameter(field_diameter_mm)
    area = field_area_mm2(field_diameter_mm) * FIELDS
    hundredths = field_diameter_mm * 100
    row = NOTTINGHAM_TABLE.get(round(hundredths)) if _is_whole(hundredths) else None
    low, high = row or cut_offs(area)
    source = "published table" if row else "between rows of the published table: its densities"
    basis = f"{FIELDS} fields of {field_diameter_mm:g} mm; {source} (Elston and Ellis; NHSBSP)"
    return _scored("Nottingham", count, area, (low, high), basis)


def who_2019_score(count: int, area_mm2: float) -> MitoticScore:
    """Score a count per mm2: up to 3, 4 to 7, 8 and more (WHO 2019).

    For an area other than 1 mm2 the density need not be whole. The gaps between 3 and 4 and between
    7 and 8 are cut where the Nottingham table cuts them, at 3.65 and 7.30 per mm2.

    Raises:
        UsageError: for an area that is not positive or a negative count.
    """
    if not (math.isfinite(area_mm2) and area_mm2 > 0):
        raise UsageError(f"area {area_mm2} mm2 must be above 0")
    basis = f"per mm2, counted in {area_mm2:.3g} mm2; up to 3, 4 to 7, 8 and more (WHO 2019)"
    return _scored("WHO 2019", count, area_mm2, cut_offs(area_mm2), basis)


def cut_offs(area_mm2: float) -> tuple[int, int]:
    """Return (largest count with score 1, smallest count with score 3) for an area."""
    # The tiny addition keeps a product that should be whole from falling below it.
    low = math.floor(_ONE_UP_TO * area_mm2 + 1e-9)
    return low, math.floor(_TWO_UP_TO * area_mm2 + 1e-9) + 1


def nottingham_grade(tubules: int, nuclei: int, mitoses: int) -> int:
    """Return the grade from the three scores: sum 3 to 5 is 1, 6 or 7 is 2, 8 or 9 is 3.

    Raises:
        UsageError: for a score other than 1, 2 or 3.
    """
    for name, value in (("tubule", tubules), ("nuclear", nuclei), ("mitotic", mitoses)):
        if value not in (1, 2, 3):
            raise UsageError(f"{name} score {value}: must be 1, 2 or 3")
    total = tubules + nuclei + mitoses
    return 1 if total <= 5 else 2 if total <= 7 else 3


def _scored(
    system: str, count: int, area_mm2: float, cuts: tuple[int, int], basis: str
) -> MitoticScore:
    if count < 0:
        raise UsageError(f"count {count} must be 0 or more")
    low, high = cuts
    score = 1 if count <= low else 3 if count >= high else 2
    return MitoticScore(system, score, count, area_mm2, count / area_mm2, low, high, basis)


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6
