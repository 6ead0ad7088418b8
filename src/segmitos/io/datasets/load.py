"""Data sets by name: FORMAT:PATH -> cases (image, points or masks, um/px, slide, patient)."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

from segmitos.errors import DataError, InputError, UsageError
from segmitos.io.arguments import paths_of
from segmitos.io.datasets.case import Case
from segmitos.io.geometry import check_mpp, check_override, same_scale
from segmitos.io.problems import Problems, collected
from segmitos.io.text import listed

Reader = Callable[[Path, Problems | None], list[Case]]


@dataclass(frozen=True)
class FormatInfo:
    """A data set format: what it is, and where its reader lives."""

    name: str
    summary: str
    home: str
    notes: str = ""
    """Where the function is that says what its reader leaves out; there may be none."""

    def read(self, path: Path, problems: Problems | None = None) -> list[Case]:
        """Read all cases under a path.

        Args:
            path: of the data set.
            problems: where given, what is wrong with a case or line is added to it, and the others
                are read; else it is raised.

        Raises:
            DataError: for what is wrong with a case, or with the whole.
        """
        reader: Reader = _find(self.home)
        return reader(path, problems)

    def left_out(self, path: Path) -> list[str]:
        """Say what of a path `read` leaves out, a line each. Raises DataError as `read`."""
        return _find(self.notes)(path) if self.notes else []


def _find(place: str) -> Any:
    """Return the function that `module:function` names."""
    module, _, function = place.partition(":")
    return getattr(import_module(f"segmitos.io.datasets.{module}"), function)


_OF_DATABASES = "tupac:other_classes"
FORMATS: dict[str, FormatInfo] = {
    info.name: info
    for info in (
        FormatInfo("mitos14", "ICPR 2014 MITOS-ATYPIA: frames and click CSVs", "mitos:mitos14"),
        FormatInfo(
            "mitos12",
            "ICPR 2012 MITOSIS: pixel lists, or tiles with masks",
            "mitos12:mitos12",
            _OF_DATABASES,
        ),
        FormatInfo("amida13", "AMIDA13: row,column CSVs, cases 01 to 23", "tupac:amida13"),
        FormatInfo(
            "tupac16",
            "TUPAC16 auxiliary: CSVs, or a SlideRunner database",
            "tupac:tupac16",
            _OF_DATABASES,
        ),
        FormatInfo(
            "midog", "MIDOG 2021, 2022, ++: the organizers' JSON", "midog:midog", "midog:unlabeled"
        ),
        FormatInfo(
            "cbis-ddsm", "CBIS-DDSM mammograms: case CSVs, masks of masses", "cbis_ddsm:cbis_ddsm"
        ),
        FormatInfo(
            "mini-mias", "mini-MIAS mammograms: circles round masses", "mammography:mini_mias"
        ),
        FormatInfo("crops", "crops centered on mitoses, with crops.csv", "crops:crops"),
        FormatInfo("qupath", "images with QuPath's GeoJSON export beside them", "points:qupath"),
        FormatInfo("points", "images with one CSV or GeoJSON of points each", "points:points"),
    )
}


def load_dataset(
    spec: str | Path | Sequence[str | Path],
    cases: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    mpp: float | None = None,
    override_mpp: bool = False,
    problems: Problems | None = None,
) -> list[Case]:
    """Load one or several data sets.

    Args:
        spec: `FORMAT:PATH` or several of them; a bare PATH where the format can be told.
        cases: keep only slides or cases that match this pattern (as in a shell), or one of several.
        exclude: leave out those that match.
        mpp: um per pixel where neither an image's file nor the format says.
        override_mpp: use `mpp` whatever they say.
        problems: where given, what is wrong with single cases is added to it, and the others are
            loaded.

    Raises:
        DataError: for a folder that is not in its format, or a pattern that matches nothing.
        UsageError: for a format that is not known.
    """
    cases, exclude = _patterns(cases), _patterns(exclude)
    sets: list[tuple[Path | None, list[Case]]] = []
    for one in paths_of(spec, "data set"):
        with collected(problems):
            sets.append(_load_one(str(one), problems))
    found = _folders_apart(sets)
    if problems and not found:
        if len(problems) == 1:
            raise DataError(problems.pop())
        return []
    found = _slides_apart(_named_apart(found))
    chosen = found
    if cases:
        for pattern in cases:
            _require_match(found, pattern, "--cases")
        chosen = [case for case in chosen if any(matches(case, p) for p in cases)]
    for pattern in exclude:
        _require_match(found, pattern, "--exclude")
    chosen = [case for case in chosen if not any(matches(case, p) for p in exclude)]
    if not chosen:
        raise DataError(f"no case is left of {len(found)} after --cases and --exclude")
    scaled = _scaled(chosen, mpp, override_mpp)
    # Who made the slides is guessed: the data set, and its scanner where that is known.
    guessed = [" / ".join(filter(None, (case.dataset, case.scanner))) for case in scaled]
    return [
        case if case.laboratory else dataclasses.replace(case, laboratory=guess)
        for case, guess in zip(scaled, guessed, strict=True)
    ]


def _patterns(given: str | Sequence[str]) -> list[str]:
    """Return one pattern or several as a list; of one, its letters are no patterns."""
    return [given] if isinstance(given, str) else list(given)


def left_out(spec: str | Path | Sequence[str | Path]) -> list[str]:
    """Say what of data sets `load_dataset` leaves out, a line each; it says what is wrong."""
    lines: list[str] = []
    for one in paths_of(spec, "data set"):
        with suppress(InputError, UsageError):
            info, path = _format_of(str(one))
            lines += info.left_out(path)
    return lines


def _scaled(cases: list[Case], mpp: float | None, override: bool) -> list[Case]:
    """Give `mpp` to the cases that have no scale, or to all of them."""
    check_override(override, mpp)
    if mpp is None:
        return cases
    check_mpp(mpp, "--mpp")
    if override:
        return [dataclasses.replace(case, mpp=mpp, override_mpp=True) for case in cases]
    unknown = [case for case in cases if case.mpp is None]
    differing = [case for case in cases if case.mpp is not None and not same_scale(case.mpp, mpp)]
    if differing and not unknown:
        own = differing[0]
        raise UsageError(
            f"--mpp {mpp:g}: the data set says {own.mpp:g} um/px ({own.name}); leave --mpp out, "
            "or insist with --override-mpp"
        )
    return [dataclasses.replace(case, mpp=mpp) if case.mpp is None else case for case in cases]


def _folders_apart(sets: Sequence[tuple[Path | None, list[Case]]]) -> list[Case]:
    """Name folders of points that have one name after the folders above, too: they are two sets.

    Args:
        sets: the folder that each data set is named after, None for the others, and its cases.
    """
    folders = {folder for folder, _ in sets if folder is not None}
    found: list[Case] = []
    for folder, cases in sets:
        if folder is not None:
            depth, others = 1, folders - {folder}
            while any(other.parts[-depth:] == folder.parts[-depth:] for other in others):
                depth += 1
            name = "/".join(folder.parts[-depth:])
            cases = [dataclasses.replace(case, dataset=name) for case in cases]
        found += cases
    return found


def _slides_apart(cases: list[Case]) -> list[Case]:
    """Put the data set before the slides of a name that two data sets have: they are two slides."""
    sets: dict[str, set[str]] = {}
    for case in cases:
        sets.setdefault(case.slide, set()).add(case.collection)
    return [
        dataclasses.replace(case, slide=f"{case.collection}/{case.slide}")
        if len(sets[case.slide]) > 1
        else case
        for case in cases
    ]


def _named_apart(cases: list[Case]) -> list[Case]:
    """Put data set and slide before the names where two cases have one name."""
    if len({case.name for case in cases}) == len(cases):
        return cases
    named = [
        dataclasses.replace(case, name=f"{case.dataset}/{case.slide}/{case.name}") for case in cases
    ]
    twice = [name for name, count in Counter(case.name for case in named).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} cases are there twice, e.g. {twice[0]}: is a data set given twice?"
        )
    return named


def _format_of(spec: str) -> tuple[FormatInfo, Path]:
    """Return what `FORMAT:PATH` or a bare path names."""
    name, colon, rest = spec.partition(":")
    if colon and name in FORMATS:
        path, info = Path(rest).expanduser(), FORMATS[name]
        if not rest:
            raise UsageError(f"{spec} names no path; write {name}:PATH")
    elif colon and not os.path.exists(spec) and not os.path.exists(name):
        raise UsageError(f"{spec}: {name!r} is no format; known: {', '.join(FORMATS)}")
    else:
        path = Path(spec).expanduser()
        info = FORMATS[guess_format(path)] if os.path.exists(path) else FORMATS["points"]
    if not os.path.exists(path):
        raise DataError(f"data set {path} does not exist")
    return info, path


def _load_one(spec: str, problems: Problems | None) -> tuple[Path | None, list[Case]]:
    """Return the cases of one data set, and the folder that it is named after, if it is."""
    info, path = _format_of(spec)
    cases = info.read(path, problems)
    if not cases and not problems:
        raise DataError(f"{path} holds no case in the format {info.name} ({info.summary})")
    named = info.name in ("points", "qupath")
    return Path(os.path.abspath(path)) if named else None, cases


# What tells a format, first match first: patterns of which one must be there.
_SIGNS = {
    "crops": ("crops.csv",),
    "mini-mias": ("lesions.csv",),
    "tupac16": ("mitoses_ground_truth",),
    "cbis-ddsm": ("mass_case_description_*.csv", "*/mass_case_description_*.csv"),
    "mitos14": ("frames/x40", "*/frames/x40", "*/*/frames/x40"),
    "mitos12": ("masks", "[AH][0-9][0-9]_v2"),
    "midog": ("MIDOG*.json",),
}


def guess_format(path: Path) -> str:
    """Tell the format of a path by what lies in it. Raises DataError where it cannot."""
    for name, patterns in _SIGNS.items():
        if any(next(iter(path.glob(pattern)), None) for pattern in patterns):
            return name
    if path.is_file() and path.suffix.lower() == ".json":
        return "midog"
    if path.is_dir() and any(path.rglob("*.csv")):
        return "points"
    if path.is_dir() and any(path.rglob("*.geojson")):
        return "qupath"
    raise DataError(
        f"the format of {path} cannot be told; write FORMAT:{path} with one of {', '.join(FORMATS)}"
    )


def matches(case: Case, pattern: str) -> bool:
    """Tell whether a pattern is of a case: of its name or its slide, with its data set or not."""
    slide = case.slide.removeprefix(f"{case.collection}/")
    return any(fnmatch(name, pattern) for name in (slide, case.slide, case.name))


def _require_match(cases: Sequence[Case], pattern: str, option: str) -> None:
    if any(matches(case, pattern) for case in cases):
        return
    slides = sorted({case.slide for case in cases})
    raise DataError(f"{option} {pattern} matches no slide or case; slides: {listed(slides, 12)}")
