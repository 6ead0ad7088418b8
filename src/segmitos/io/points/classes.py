"""The class names of mitoses, look-alikes and unsure cells, as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from segmitos.errors import DataError

Label = Literal["mitosis", "non-mitosis", "unsure"]

LABELS: tuple[Label, ...] = ("mitosis", "non-mitosis", "unsure")
"""Mitotic figure, hard negative (look-alike), and neither: counted neither way."""


def _names(text: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for name in text.split(","))


# Compared without case; plural, hyphen and underscore make no difference.
MITOSIS_CLASSES = _names(
    """
    mitotic figure, mitosis, mitoses, mitose, mitotic, mitotic cell, mf, atypical,
    atypical mitosis, atypical mitotic figure, typical mitosis, typical mitotic figure,
    normal mitosis, normal mitotic figure
    """
)
HARD_NEGATIVE_CLASSES = _names(
    """
    hard negative, non mitotic figure, not mitotic figure, nonmitotic figure, non mitosis,
    non mitoses, not mitosis, nonmitosis, non mitotic, not mitotic, nonmitotic,
    non mitotic cell, nonmitotic cell, hard negative imposter, hard negative look alike,
    mitotic figure look alike, mitosis like, imposter, impostor, look alike, lookalike
    """
)
UNSURE_CLASSES = _names(
    """
    unsure, uncertain, unclear, undecided, doubtful, equivocal, ambiguous, indeterminate,
    not sure, unsure cell, unsure mitosis, uncertain mitosis, possible mitosis,
    unsure mitotic figure, uncertain mitotic figure, possible mitotic figure
    """
)
_DOUBTS = _names(
    "maybe, possible, possibly, probable, probably, questionable, suspicious, suspected, "
    "borderline, unknown, ?"
)
"""Parts of a derived class that make what stands before them unsure."""
_DENIALS = _names(
    """
    negative, no, none, not, non, false, false positive, fp, rejected, other, wrong, removed,
    deleted, discarded, excluded, exclude, artefact, artifact, apoptosis, apoptotic, pyknosis,
    pyknotic, necrosis, necrotic, debris
    """
)
"""Parts of a derived class that take back what stands before them."""
IGNORED_CLASS = "ignore*"
"""QuPath's class of what is left out."""


def plain_name(name: str) -> str:
    """Return a class name without case, plural, hyphen and underscore."""
    words = " ".join(name.lower().replace("-", " ").replace("_", " ").split())
    return re.sub(r"(figure|cell|negative|imposter|impostor|alike)s$", r"\1", words)


class Classes:
    """Tells the label of a class name, with the names that the caller adds.

    Args:
        more: label of a class name, or `ignore` to leave its objects out; before all others.
    """

    def __init__(self, more: Mapping[str, Label | Literal["ignore"]] | None = None) -> None:
        groups = zip(LABELS, (MITOSIS_CLASSES, HARD_NEGATIVE_CLASSES, UNSURE_CLASSES), strict=True)
        self._labels: dict[str, Label] = {
            plain_name(name): label for label, names in groups for name in names
        }
        self._ignored = {IGNORED_CLASS}
        for name, label in (more or {}).items():
            if label == "ignore":
                self._ignored.add(plain_name(name))
                self._labels.pop(plain_name(name), None)
            else:
                self._labels[plain_name(name)] = label

    def label(self, name: str) -> Label | None:
        """Return the label of a class name (`Mitosis: atypical` is a `Mitosis`), None if unknown.

        `Mitosis: unsure` and the like are unsure: the part after the colon says so. `Mitosis:
        Negative` and the like say two things, and are unknown, unless the name as a whole is known.
        """
        if self.is_named(name):
            return self._labels[plain_name(name)]
        names = [plain_name(part) for part in name.split(":")]
        parts = [self._labels.get(part) for part in names]
        doubted = parts[0] == "mitosis" and not _DOUBTS.isdisjoint(names[1:])
        if "unsure" in parts or doubted:
            return "unsure"
        denied = any(
            label == "non-mitosis" or part in _DENIALS or part in self._ignored
            for part, label in zip(names[1:], parts[1:], strict=True)
        )
        return None if parts[0] == "mitosis" and denied else parts[0]

    def is_named(self, name: str) -> bool:
        """Tell whether a class name as a whole has a label."""
        return plain_name(name) in self._labels

    def is_ignored(self, name: str) -> bool:
        """Tell whether objects of a class are to be left out."""
        return plain_name(name) in self._ignored


CLASSES = Classes()


def unknown_class(name: str, where: str) -> DataError:
    """Return the error for a class that is not understood."""
    return DataError(
        f"{where}: class {name[:60]!r} is neither mitosis nor hard negative nor unsure; rename it "
        "'Mitotic figure', 'Hard negative' or 'Unsure', or 'Ignore*' to leave it out"
    )
