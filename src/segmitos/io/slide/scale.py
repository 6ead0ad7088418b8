"""The scale of an image: what its file states, what the user gives, and which of them holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segmitos.errors import ScaleError
from segmitos.io.geometry import same_scale
from segmitos.io.text import parse_decimal, parse_mpp

MM_PER_INCH = 25.4
PRINT_DPI = 2400.0
"""Densities up to this are a screen's or a printer's (72, 96, 300 ...), not a microscope's."""
SMALLEST_EMBEDDED_MPP, LARGEST_EMBEDDED_MPP = 0.05, 20.0
_MAX_SHOWN = 40

UM_PER_UNIT = {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometers": 1.0,
    "micrometre": 1.0,
    "micrometres": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
}


@dataclass(frozen=True)
class Scale:
    """Micrometers per level-0 pixel as the file states them, and where it does.

    Attributes:
        mpp_x: um per pixel, 0 where what the file states is not understood.
        mpp_y: likewise.
        tag: where it stands.
        text: what stands there, where it is not understood.
        other: another scale that the file states elsewhere, in words; empty where none differs.
    """

    mpp_x: float
    mpp_y: float
    tag: str
    text: str = ""
    other: str = ""

    @property
    def is_understood(self) -> bool:
        """Whether it is the scale of a microscope."""
        return self.mpp_x > 0 and self.mpp_y > 0

    def square(self, path: Path) -> float:
        """The one mpp of both axes.

        Raises:
            ScaleError: if the axes differ by more than 2 %.
        """
        if not same_scale(self.mpp_x, self.mpp_y):
            raise ScaleError(
                f"{path}: pixels are not square, {self.mpp_x:.4g} x {self.mpp_y:.4g} um "
                f"({self.tag}); resample the image, or insist on one value with --mpp and "
                "--override-mpp"
            )
        return (self.mpp_x + self.mpp_y) / 2


def choose_scale(
    path: Path, stated: Scale | None, given: float | None, override: bool
) -> tuple[float | None, str, tuple[str, ...]]:
    """Choose between the scale that a file states and the one that is given.

    The file's own holds; a given one fills in where there is none, unless it overrides.

    Args:
        path: for messages.
        stated: by the file.
        given: by the user, or by a data set.
        override: whether the given one holds in any case.

    Returns:
        Micrometers per pixel, None where they are unknown; where they come from; warnings.

    Raises:
        ScaleError: if the file's own pixels are not square, and nothing overrides that.
    """
    if override and given is not None:
        own = stated if stated is not None and stated.is_understood else None
        differs = own is not None and not same_scale((own.mpp_x + own.mpp_y) / 2, given)
        warning = (
            f"{path}: the file says {own.mpp_x:.4g} um/px ({own.tag}); {given:.4g} is used as "
            "--override-mpp insists"
            if own is not None and differs
            else ""
        )
        return given, "given", (warning,) if warning else ()
    if stated is None or not stated.is_understood:
        return given, "unknown" if given is None else "given", ()
    own_mpp = stated.square(path)
    warnings: tuple[str, ...] = ()
    if given is not None and not same_scale(own_mpp, given):
        warnings = (
            f"{path}: the file says {own_mpp:.4g} um/px ({stated.tag}), {given:.4g} was given; "
            f"{own_mpp:.4g} is used (to insist on {given:.4g}: --override-mpp)",
        )
    elif stated.other:
        warnings = (
            f"{path}: the file says {own_mpp:.4g} um/px ({stated.tag}) and {stated.other}; "
            f"{own_mpp:.4g} is used (to insist on the other: --mpp and --override-mpp)",
        )
    return own_mpp, f"embedded: {stated.tag}", warnings


def unknown_scale(path: Path, stated: Scale | None) -> ScaleError:
    """The error of an image whose scale is needed and unknown: it names what the file says."""
    remedy = "give micrometers per pixel, e.g. --mpp 0.25 for a x40 scan"
    if stated is None:
        return ScaleError(f"{path}: the file does not say its scale; {remedy}")
    text = " ".join(stated.text.split())[:_MAX_SHOWN]
    return ScaleError(
        f"{path}: the file says {stated.tag} = {text!r}, which is no scale from "
        f"{SMALLEST_EMBEDDED_MPP:g} to {LARGEST_EMBEDDED_MPP:g} um/px; {remedy}"
    )


def scale_of(mpp_x: float, mpp_y: float, tag: str, text: str = "") -> Scale:
    """The scale if both values are a microscope's (0.05 to 20 um/px), else one not understood."""
    for mpp in (mpp_x, mpp_y):
        if not math.isfinite(mpp) or not SMALLEST_EMBEDDED_MPP <= mpp <= LARGEST_EMBEDDED_MPP:
            return Scale(0.0, 0.0, tag, text or f"{mpp_x:g} x {mpp_y:g}")
    return Scale(mpp_x, mpp_y, tag)


def scale_of_texts(text_x: str, text_y: str, tag: str, um_per_unit: float = 1.0) -> Scale:
    """The scale from the texts of both axes, with a decimal point or comma; um may be named."""
    read = parse_mpp if um_per_unit == 1.0 else parse_decimal
    x, y = read(text_x), read(text_y)
    shown = text_x if text_x == text_y else f"{text_x} x {text_y}"
    if x is None or y is None:
        return Scale(0.0, 0.0, tag, shown)
    return scale_of(x * um_per_unit, y * um_per_unit, tag, shown)


def scale_of_dpi(dpi_x: float, dpi_y: float, tag: str) -> Scale | None:
    """The scale from dots per inch, unless they are a screen's or a printer's."""
    if not (math.isfinite(dpi_x) and math.isfinite(dpi_y)) or min(dpi_x, dpi_y) <= PRINT_DPI:
        return None
    scale = scale_of(1000 * MM_PER_INCH / dpi_x, 1000 * MM_PER_INCH / dpi_y, tag)
    return scale if scale.is_understood else None


def first_understood(scales: Iterable[Scale | None]) -> Scale | None:
    """Of what a file states in several places the first that is understood, else the first."""
    found = [scale for scale in scales if scale is not None]
    return next((scale for scale in found if scale.is_understood), found[0] if found else None)
