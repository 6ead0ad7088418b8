"""Names of output folders: an input's stem, or more of its path where stems collide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from segmitos.io.error_log import ERRORS
from segmitos.io.files import absolute_path
from segmitos.io.outputs import COHORT_REPORT
from segmitos.report.signed import DECISIONS, SIGNED

COHORT, COHORT_PARQUET = "cohort.csv", "cohort.parquet"
FAILURES, FAILURE_RECORDS = "failures.csv", "failures"
# What a run holds beside its results; those of a slide of such a name would take its place.
RESERVED = (
    *(COHORT, COHORT_REPORT, COHORT_PARQUET, FAILURES, FAILURE_RECORDS, ERRORS),
    *(SIGNED, DECISIONS),
)

MAX_NAME_BYTES = 120
"""Leaves room for the marks of a folder that is being built, in the 255 bytes of a name."""


def output_names(paths: Sequence[Path], given: Sequence[str | None] = ()) -> list[str]:
    """Name an output folder for each input.

    The names do not depend on the order of the inputs. Names that differ only in upper and lower
    case collide too, since on some disks they are one folder.

    Args:
        paths: of the inputs.
        given: names to take in place of the stems, None for none; empty: none at all.
    """
    absolute = [absolute_path(path) for path in paths]
    if not absolute:
        return []
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    wanted = given or [None] * len(absolute)
    names = [_clean(name or path.stem, path) for name, path in zip(wanted, absolute, strict=True)]
    longer = ["__".join(path.relative_to(root).with_suffix("").parts) for path in absolute]
    longest = ["__".join(path.relative_to(root).parts).replace(".", "_") for path in absolute]
    blocked = [name.casefold() for name in RESERVED]
    for candidates in (longer, longest):
        clash = _clashing(names, blocked)
        names = [
            _clean(candidate, path) if bad else name
            for name, candidate, path, bad in zip(names, candidates, absolute, clash, strict=True)
        ]
    # What still collides (a_b.png beside a.b.png) is told apart by what no two paths share.
    return [
        own_name(name, path) if bad else name
        for name, path, bad in zip(names, absolute, _clashing(names, blocked), strict=True)
    ]


def own_name(name: str, path: Path) -> str:
    """Return a name that no other input has: with a hash of the path."""
    mark = hashlib.sha256(os.fsencode(absolute_path(path))).hexdigest()[:8]
    # Cut between characters, with room for the mark.
    return f"{name.encode()[: MAX_NAME_BYTES - 9].decode('utf-8', 'ignore')}-{mark}"


def _clashing(names: Sequence[str], blocked: Sequence[str]) -> list[bool]:
    folded = [name.casefold() for name in names]
    counts = {name: 0 for name in folded}
    for name in (*folded, *blocked):
        if name in counts:
            counts[name] += 1
    return [counts[name] > 1 for name in folded]


def _clean(name: str, path: Path) -> str:
    """Return a name that any disk and any table can hold; a changed one gets a hash of its path."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    plain = "".join("_" if sign in "/\\\x7f" or sign < " " else sign for sign in text)
    plain = plain.strip(" ")
    if plain.startswith("."):
        plain = "_" + plain[1:]
    fits = len(plain.encode()) <= MAX_NAME_BYTES
    return plain if plain == name and fits else own_name(plain, path)
