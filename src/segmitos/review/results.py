"""The results of `segmitos detect` that are reviewed: what stands in their folders."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.cohort.atomic_folder import OutputFolder
from segmitos.counting.saved import SavedResult, read_saved
from segmitos.counting.summary import Summary, read_summary
from segmitos.errors import InputError
from segmitos.io.files import no_result
from segmitos.io.outputs import SUMMARY
from segmitos.io.points.candidates import Candidates
from segmitos.review.store import ReviewKey

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Result:
    """One result folder.

    Attributes:
        name: of the folder.
        folder: its path.
        summary: what `summary.json` holds.
        image: path of the slide; it need not be there.
    """

    name: str
    folder: Path
    summary: Summary
    image: Path | None
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def title(self) -> str:
        """Name of the image file."""
        return str(self.summary.input.get("name", self.name))

    @property
    def mpp(self) -> float:
        """Micrometers per level-0 pixel."""
        return self.summary.mpp

    @property
    def page(self) -> int | None:
        """Number of the image in a TIFF of several, where one was chosen."""
        page = self.summary.settings.get("page")
        return page if isinstance(page, int) else None

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height, level 0."""
        return self.summary.width_px, self.summary.height_px

    @property
    def threshold(self) -> float:
        """Score from which on a candidate is a detection."""
        return self.summary.thresholds.min_score

    @cached_property
    def key(self) -> ReviewKey:
        """What a review of this result belongs to."""
        # The same content is the same slide, whatever it is called and wherever it lies.
        digest = self.summary.input.get("sha256")
        if not isinstance(digest, str):
            identity = json.dumps(self.summary.input, sort_keys=True, ensure_ascii=False)
            digest = hashlib.sha256(identity.encode("utf-8")).hexdigest()
        return ReviewKey(digest[:64], str(self.summary.model.get("sha256", ""))[:128])

    @property
    def saved(self) -> SavedResult:
        """The result as it was saved, read once however many ask for it at a time.

        Raises:
            InputError: where a file is missing or damaged.
        """
        with self._reading:
            return self._saved

    @cached_property
    def _saved(self) -> SavedResult:
        return read_saved(self.folder)

    @property
    def candidates(self) -> Candidates:
        """What the model found, down to a low floor. Raises InputError as `saved` does."""
        return self.saved.candidates


class Worklist:
    """All results of a folder, by name. The only way from a name to a file."""

    def __init__(self, results: Path, slides: Path | None = None) -> None:
        """Look for results.

        Args:
            results: an output folder of detect, or the folder of one result.
            slides: where the slides are now, if they were moved since.

        Raises:
            InputError: where there is no result.
        """
        self.folder = results
        self._slides = slides
        self._seen: dict[str, tuple[int, Result]] = {}
        self.problems: dict[str, str] = {}
        self.one = (results / SUMMARY).is_file()
        if not self.all():
            cause = next(iter(self.problems.values()), f"no {SUMMARY}")
            raise InputError(no_result(results, cause))

    @property
    def home(self) -> Path:
        """The folder that holds the result folders; reviews are kept in it."""
        return self.folder.absolute().parent if self.one else self.folder

    def all(self) -> dict[str, Result]:
        """Return all results by name; those that are new or changed are read again."""
        folders = [self.folder.absolute()] if self.one else _result_folders(self.folder)
        found: dict[str, tuple[int, Result]] = {}
        for folder in folders:
            try:
                changed = (folder / SUMMARY).stat().st_mtime_ns
            except OSError:
                continue
            earlier = self._seen.get(folder.name)
            if earlier is not None and earlier[0] == changed:
                found[folder.name] = earlier
                continue
            result = self._read(folder)
            if result is not None:
                found[folder.name] = (changed, result)
        self._seen = found
        return {name: result for name, (_, result) in found.items()}

    def _read(self, folder: Path) -> Result | None:
        try:
            summary = read_summary(folder)
        except InputError as error:
            self.problems[folder.name] = str(error)
            return None
        self.problems.pop(folder.name, None)
        record = OutputFolder(folder.parent, folder.name).record()
        image = None if record is None else Path(record.input.path)
        if self._slides is not None:
            image = _find_slide(self._slides, str(summary.input.get("name", ""))) or image
        return Result(folder.name, folder, summary, image)


def _result_folders(results: Path) -> list[Path]:
    try:
        return sorted(
            entry
            for entry in results.iterdir()
            if not entry.name.startswith(".") and (entry / SUMMARY).is_file()
        )
    except OSError as error:
        raise InputError(f"cannot read {results}: {error.strerror or error}") from error


def _find_slide(folder: Path, name: str) -> Path | None:
    """Return the file of that name in a folder or below it, the nearest first."""
    straight = folder / name
    if straight.exists():
        return straight
    found = sorted(path for path in folder.rglob("*") if path.name == name)
    return found[0] if found else None


def score_distance(result: Result) -> Floats:
    """How far each candidate's score is from the threshold; unknown scores are farthest."""
    distance = np.abs(result.candidates.score - result.threshold)
    return np.where(np.isnan(distance), math.inf, distance)


def outlines(result: Result) -> list[list[tuple[float, float]]]:
    """Return a box around each piece of tissue, level-0 pixels; the whole image without any."""
    width, height = result.size_px
    tissue = result.saved.tissue
    if not tissue.mask.any():
        return [_box(-0.5, -0.5, width - 0.5, height - 0.5)]
    from scipy import ndimage

    step = tissue.mpp / result.mpp
    labels, _ = ndimage.label(tissue.mask, np.ones((3, 3)))
    boxes = []
    for rows, columns in ndimage.find_objects(labels):
        x0, x1 = columns.start * step - 0.5, min(columns.stop * step, width) - 0.5
        y0, y1 = rows.start * step - 0.5, min(rows.stop * step, height) - 0.5
        boxes.append(_box(x0, y0, x1, y1))
    return boxes


def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
