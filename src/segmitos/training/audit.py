"""Which labels of a data set look wrong, by networks that did not learn from them.

Every clicker misses some. A network that was trained on a label defends it, so the slides are
divided into folds, and each slide is judged by verifiers of the other folds alone, of several
seeds. What they suspect is shown and written as `unsure`, which training ignores and scoring counts
neither way. Nothing becomes a mitosis here: that takes a person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from segmitos.detection.model import checked_threads
from segmitos.errors import DataError
from segmitos.io.pairs import is_near
from segmitos.training.nuclei import find_dark_nuclei
from segmitos.training.sampling import TrainingImage, common_stain
from segmitos.training.train_verifier import (
    Pool,
    VerifierRecipe,
    point_rows,
    score_patches,
    train_verifier,
)

Kind = Literal["missed mitosis", "doubtful mitosis", "misplaced point"]
OnStep = Callable[[int, int, str], None]
"""Told how many steps are done, of how many, and of which network."""

MPP = 0.25
_NEAR_PX = 30.0
"""7.5 um: a nucleus within belongs to the label."""
_ALIKE_PX = 8.0
"""2 um: candidates this close are one."""
_MITOSIS, _HARD_NEGATIVE, _NUCLEUS = range(3)
"""What a point is in the data set: labeled either way, or a dark nucleus without a label."""
_LABELS = ("mitosis", "hard negative", "")


@dataclass(frozen=True)
class AuditOptions:
    """How a data set is audited. Probabilities are means over the seeds."""

    folds: int = 3
    seeds: int = 2
    steps: int = 600
    batch: int = 64
    missed_above: float = 0.6
    """A nucleus that is not labeled, or labeled a hard negative, is suspected from here on."""
    doubtful_below: float = 0.05
    """A mitosis is suspected up to here."""


@dataclass(frozen=True)
class Suspect:
    """A label that looks wrong; positions in pixels of the source."""

    source: int
    x: float
    y: float
    kind: Kind
    score: float
    spread: float
    """Standard deviation of the probability over the seeds."""
    label: str
    """What the data set calls it: mitosis, hard negative, or nothing."""


def audit_labels(
    sources: Sequence[TrainingImage],
    options: AuditOptions,
    on_step: OnStep = lambda done, steps, network: None,
    threads: int | None = None,
) -> list[Suspect]:
    """Judge every label, and every dark nucleus without one, by networks of other slides.

    Args:
        sources: images at 0.25 um/px with their points.
        options: of the audit.
        on_step: told of each step of the trainings.
        threads: of the CPU; None leaves torch's own choice.

    Returns:
        The suspects, the surest missed mitoses first, then doubtful and misplaced ones.

    Raises:
        DataError: for fewer than two slides, of two patients, or none with mitoses in a fold's
            rest.
        UsageError: for a number of threads that cannot be.
    """
    threads = checked_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    fold_of = _folds(sources, options.folds)
    target = common_stain(sources)
    images = [source.matched(target) for source in sources]
    nuclei = [
        np.zeros((0, 2)) if source.centered else _nuclei(source, image)
        for source, image in zip(sources, images, strict=True)
    ]
    stains = [source.stain for source in sources if source.stain is not None]
    suspects: list[Suspect] = []
    folds = max(fold_of) + 1
    steps = folds * options.seeds * options.steps
    for fold in range(folds):
        learns = [index for index, its_fold in enumerate(fold_of) if its_fold != fold]
        judged = [index for index, its_fold in enumerate(fold_of) if its_fold == fold]
        points = {index: _points(sources[index], nuclei[index]) for index in judged}
        logits: dict[int, list[NDArray[np.float64]]] = {index: [] for index in judged}
        for seed in range(options.seeds):
            network = train_verifier(
                sources,
                _pools(sources, nuclei, learns),
                VerifierRecipe(steps=options.steps, batch=options.batch, seed=seed),
                stains,
                target,
                partial(
                    _tell,
                    on_step,
                    (fold * options.seeds + seed) * options.steps,
                    steps,
                    f"fold {fold + 1} of {folds}, seed {seed}",
                ),
            )
            for index in judged:
                logits[index].append(score_patches(network, images[index], points[index][:, :2]))
        for index in judged:
            scores = 1 / (1 + np.exp(-np.array(logits[index])))
            suspects += _suspects(index, sources[index], points[index], scores, options)
    order = {"missed mitosis": 0, "doubtful mitosis": 1, "misplaced point": 2}
    return sorted(
        suspects,
        key=lambda s: (order[s.kind], -s.score if s.kind == "missed mitosis" else s.score),
    )


def _tell(on_step: OnStep, before: int, steps: int, network: str, step: int, loss: float) -> None:
    """Tell of one training's step as a step of all trainings."""
    on_step(before + step, steps, network)


def _nuclei(source: TrainingImage, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the dark nuclei (n, 2) where somebody looked for mitoses."""
    found = find_dark_nuclei(image, MPP)
    return found[source.is_reviewed(found)]


def _folds(sources: Sequence[TrainingImage], folds: int) -> list[int]:
    """Return the fold of each source; slides with many mitoses are spread over the folds.

    Two scans of one patient show the same cells, and are not divided.
    """
    groups = [source.group or source.slide for source in sources]
    mitoses: dict[str, int] = {}
    for group, source in zip(groups, sources, strict=True):
        mitoses[group] = mitoses.get(group, 0) + len(source.mitoses_xy)
    if len(mitoses) < 2:
        raise DataError(
            "the audit needs at least two slides, of two patients: each is judged by networks of "
            "the others"
        )
    count = min(folds, len(mitoses))
    held = [0] * count
    fold_of: dict[str, int] = {}
    for group in sorted(mitoses, key=lambda name: (-mitoses[name], name)):
        lightest = held.index(min(held))
        fold_of[group] = lightest
        held[lightest] += mitoses[group] + 1
    return [fold_of[group] for group in groups]


def _points(source: TrainingImage, nuclei: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 3): x, y, and `_MITOSIS`, `_HARD_NEGATIVE` or `_NUCLEUS`."""
    labeled = np.concatenate([source.mitoses_xy, source.hard_negatives_xy])
    known = np.concatenate([labeled, source.ignored_xy])
    free = nuclei[~is_near(nuclei, known, 2 * _ALIKE_PX)]
    # In the order of the numbers.
    groups = (source.mitoses_xy, source.hard_negatives_xy, free)
    kinds = np.repeat(np.arange(3.0), [len(group) for group in groups])
    return np.column_stack([np.concatenate(groups), kinds])


def _pools(
    sources: Sequence[TrainingImage], nuclei: Sequence[NDArray[np.float64]], learns: Sequence[int]
) -> dict[str, Pool]:
    positives = [np.zeros((0, 3))]
    negatives = [np.zeros((0, 3))]
    for index in learns:
        source = sources[index]
        positives.append(point_rows(index, source.mitoses_xy))
        others = np.concatenate([nuclei[index], source.hard_negatives_xy])
        avoid = np.concatenate([source.mitoses_xy, source.ignored_xy])
        negatives.append(point_rows(index, others[~is_near(others, avoid, _NEAR_PX)]))
    return {"": Pool(np.concatenate(positives), np.concatenate(negatives))}


def _suspects(
    index: int,
    source: TrainingImage,
    points: NDArray[np.float64],
    scores: NDArray[np.float64],
    options: AuditOptions,
) -> list[Suspect]:
    """Return the suspects of one image; `points` are (n, 3), `scores` probabilities (seeds, n)."""
    mean, spread = scores.mean(axis=0), scores.std(axis=0)
    near = is_near(points[:, :2], source.mitoses_xy, _NEAR_PX)
    found: list[Suspect] = []
    taken = np.zeros((0, 2))
    for which in np.argsort(-mean):
        x, y, kind = points[which]
        if kind == _MITOSIS or mean[which] < options.missed_above or near[which]:
            continue
        if is_near(points[which : which + 1, :2], taken, _NEAR_PX)[0]:
            continue
        taken = np.concatenate([taken, points[which : which + 1, :2]])
        found.append(
            Suspect(index, x, y, "missed mitosis", mean[which], spread[which], _LABELS[int(kind)])
        )
    for which in np.flatnonzero((points[:, 2] == _MITOSIS) & (mean <= options.doubtful_below)):
        x, y, _ = points[which]
        beside = np.flatnonzero(
            (points[:, 2] == _NUCLEUS)
            & (mean >= options.missed_above)
            & (np.hypot(points[:, 0] - x, points[:, 1] - y) <= 2 * _NEAR_PX)
        )
        verdict: Kind = "misplaced point" if len(beside) else "doubtful mitosis"
        found.append(Suspect(index, x, y, verdict, mean[which], spread[which], "mitosis"))
    return found
