"""Counts at every score threshold at once, exactly.

Under one-to-one matching the number of true positives is the size of the largest matching, and a
largest matching grows by at most one with each detection that is added. So one pass over the
detections from the highest score down, with an augmenting path for each (Kuhn), tells of each
detection whether it adds a true positive; those at any threshold are the sum down to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segmitos.io.pairs import is_near, pairs_within

Neighbours = Sequence[Sequence[int]]


def neighbours_within(
    detected_xy: NDArray[Any], truth_xy: NDArray[Any], distance_px: float
) -> list[list[int]]:
    """Return, for each detection, the mitoses within the distance, nearest first."""
    near = pairs_within(detected_xy, truth_xy, distance_px)
    result: list[list[int]] = [[] for _ in range(len(detected_xy))]
    for index in np.lexsort((near.second, near.distance)).tolist():
        result[int(near.first[index])].append(int(near.second[index]))
    return result


def incremental_matching(neighbours: Neighbours, order: Sequence[int]) -> NDArray[np.bool_]:
    """Tell for each detection, added in `order`, whether it raises the largest matching.

    Args:
        neighbours: of all detections (n).
        order: indices of the detections that take part, first added first.

    Returns:
        (n,) bool, False for those that take no part.
    """
    match_of_truth: dict[int, int] = {}
    match_of_detection: dict[int, int] = {}

    def place(detection: int) -> bool:
        # Breadth first, so that a long chain in a dense cluster cannot exhaust the stack.
        came_from: dict[int, int] = {}
        queue = [detection]
        for current in queue:
            for truth in neighbours[current]:
                if truth in came_from:
                    continue
                came_from[truth] = current
                if truth in match_of_truth:
                    queue.append(match_of_truth[truth])
                    continue
                free: int | None = truth
                while free is not None:
                    mover = came_from[free]
                    match_of_truth[free] = mover
                    left = match_of_detection.get(mover)
                    match_of_detection[mover] = free
                    free = left
                return True
        return False

    adds = np.zeros(len(neighbours), dtype=bool)
    for detection in order:
        if neighbours[detection]:
            adds[detection] = place(detection)
    return adds


@dataclass(frozen=True)
class RankedDetections:
    """Detections of many images in one ranking, highest score first.

    Attributes:
        score: (n,), descending.
        matched: (n,) bool, whether the detection adds a true positive to those above it.
        image: (n,) index of its image.
        mitoses: in all images.
        images: how many there are, with or without detections.
        ignored: (n,) bool, whether the detection adds no true positive and lies at an unsure cell.
    """

    score: NDArray[np.float64]
    matched: NDArray[np.bool_]
    image: NDArray[np.intp]
    mitoses: int
    images: int
    ignored: NDArray[np.bool_]

    def at_distinct_scores(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (thresholds descending, tp, fp), where a detection counts from its score on."""
        if not len(self.score):
            return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
        last = np.flatnonzero(np.diff(self.score, append=-np.inf))
        tp = np.cumsum(self.matched)[last].astype(np.int64)
        ignored = np.cumsum(self.ignored)[last].astype(np.int64)
        return self.score[last], tp, last + 1 - tp - ignored


class RankedImage(NamedTuple):
    """Detections (n, 2) with scores (n,), mitoses (m, 2), unsure cells (k, 2) of one image."""

    detected_xy: NDArray[Any]
    score: NDArray[Any]
    truth_xy: NDArray[Any]
    distance_px: float
    ignored_xy: NDArray[Any] = np.zeros((0, 2))


def rank(
    images: Sequence[RankedImage | tuple[NDArray[Any], NDArray[Any], NDArray[Any], float]],
) -> RankedDetections:
    """Rank the detections of all images by score.

    Args:
        images: one of each; plain tuples are taken for `RankedImage`.

    Returns:
        The ranking, ties in the order given.
    """
    scores: list[NDArray[np.float64]] = []
    matches: list[NDArray[np.bool_]] = []
    owners: list[NDArray[np.intp]] = []
    unsure: list[NDArray[np.bool_]] = []
    ranked = [RankedImage(*image) for image in images]
    for index, image in enumerate(ranked):
        values = np.asarray(image.score, dtype=np.float64)
        order = np.argsort(-values, kind="stable")
        near = neighbours_within(image.detected_xy, image.truth_xy, image.distance_px)
        scores.append(values[order])
        matches.append(incremental_matching(near, order.tolist())[order])
        owners.append(np.full(len(order), index, dtype=np.intp))
        unsure.append(is_near(image.detected_xy, image.ignored_xy, image.distance_px)[order])
    mitoses = sum(len(image.truth_xy) for image in ranked)
    if not scores:
        none = np.zeros(0, bool)
        return RankedDetections(np.zeros(0), none, np.zeros(0, np.intp), mitoses, 0, none)
    score, matched, owner = np.concatenate(scores), np.concatenate(matches), np.concatenate(owners)
    ignored = np.concatenate(unsure) & ~matched
    order = np.argsort(-score, kind="stable")
    return RankedDetections(
        score[order], matched[order], owner[order], mitoses, len(images), ignored[order]
    )
