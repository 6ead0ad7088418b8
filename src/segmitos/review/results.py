"""The results of `segmitos detect` that are reviewed: what stands in their folders."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.cohort.atomic_folder import OutputFolder
from segmitos.cohort.identity import read_input
from segmitos.counting.saved import SavedResult, read_saved
from segmitos.counting.summary import Summary, read_summary
from segmitos.errors import InputError
from segmitos.io.files import no_result
from segmitos.io.outputs import SUMMARY
from segmitos.io.points.candidates import Candidates
from segmitos.io.text import reason_of
from segmitos.review.store import ReviewKey

Floats = NDArray[np.float64]
_MARKS: Mapping[str, Any] = {"threshold": None, "roi": None, "tissue": True, "tile_px": None}
"""Settings that other marks are found with, and what they are where nobody gave one."""


@dataclass(frozen=True, eq=False)
class Result:
    """One result folder.

    Attributes:
        name: of the folder.
        folder: its path.
        summary: what `summary.json` holds.
        image: path of the slide; it need not be there.
        started: when it was detected, None where that is not known.
    """

    name: str
    folder: Path
    summary: Summary
    image: Path | None
    started: datetime | None = None
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
        digest, model = self.former_key
        if self.page is not None:
            digest = _hash_of([digest, self.page])
        settings = {name: self.summary.settings.get(name) for name in _MARKS}
        # A scale that the file does not state may be mended later.
        scale = None if self.summary.mpp_source.startswith("embedded") else self.summary.mpp
        if scale is not None or settings != _MARKS:
            model = f"{model}-{_hash_of([settings, scale])[:16]}"
        return ReviewKey(digest[:64], model[:128])

    @cached_property
    def former_key(self) -> ReviewKey:
        """What an earlier version kept reviews under: the slide and the model, no settings."""
        digest = self.digest or _hash_of(self.summary.input)
        return ReviewKey(digest[:64], str(self.summary.model.get("sha256", ""))[:128])

    @property
    def digest(self) -> str | None:
        """Hash of the slide's content, None where the summary lacks it."""
        digest = self.summary.input.get("sha256")
        return digest if isinstance(digest, str) else None

    def check_image(self, path: Path) -> None:
        """Refuse a file that is not the slide of this result. Raises InputError."""
        if self.digest is not None and not _holds(path, self.digest):
            raise InputError(
                f"{path} is not the slide of {self.name}: its content is another; say where that "
                "is with --slides, or run detect again"
            )

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
        self.is_single = (results / SUMMARY).is_file()
        if not self.all():
            cause = next(iter(self.problems.values()), f"no {SUMMARY}")
            raise InputError(no_result(results, cause))

    @property
    def home(self) -> Path:
        """The folder that holds the result folders; reviews are kept in it."""
        return self.folder.absolute().parent if self.is_single else self.folder

    def all(self) -> dict[str, Result]:
        """Return all results by name; those that are new or changed are read again."""
        folders = [self.folder.absolute()] if self.is_single else _result_folders(self.folder)
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
            image = _find_slide(self._slides, summary.input) or image
        started = None if record is None else _time(record.run.get("started"))
        return Result(folder.name, folder, summary, image, started)


def _result_folders(results: Path) -> list[Path]:
    try:
        return sorted(
            entry
            for entry in results.iterdir()
            if not entry.name.startswith(".") and (entry / SUMMARY).is_file()
        )
    except OSError as error:
        raise InputError(f"cannot read {results}: {reason_of(error)}") from error


def _find_slide(folder: Path, source: Mapping[str, Any]) -> Path | None:
    """Return the file of an input's name in a folder or below it.

    Of several files of the name the one with the input's content, else the first.
    """
    name = str(source.get("name", ""))
    straight = folder / name
    if straight.is_file() and straight.stat().st_size == source.get("bytes"):
        return straight
    found = sorted(path for path in folder.rglob("*") if path.name == name)
    found.sort(key=lambda path: path != straight)
    if len(found) < 2:
        return found[0] if found else None
    return next((path for path in found if _holds(path, source.get("sha256"))), found[0])


def _holds(path: Path, digest: object) -> bool:
    """Tell whether a file has the content of an input."""
    try:
        return read_input(path).sha256 == digest
    except InputError:
        return False


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


def _time(text: object) -> datetime | None:
    """Return the time of a run; None for what is none, or has no zone."""
    try:
        found = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return None
    return found


def _hash_of(content: Any) -> str:
    """Return a hash of JSON-able values."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
