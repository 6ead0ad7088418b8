"""Counts at every score threshold at once, exactly.

Under one-to-one matching the number of true positives is the size of the largest matching, and a
largest matching grows by at most one with each detection that is added. So one pass over the
detections from the highest score down, with an augmenting path for each (Kuhn), tells of each
detection whether it adds a true positive; those at any threshold are the sum down to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.io.pairs import is_near, pairs_within

Neighbors = Sequence[Sequence[int]]


def neighbors_within(
    detected_xy: NDArray[Any], truth_xy: NDArray[Any], distance_px: float
) -> list[list[int]]:
    """Return, for each detection, the mitoses within the distance, nearest first."""
    near = pairs_within(detected_xy, truth_xy, distance_px)
    result: list[list[int]] = [[] for _ in range(len(detected_xy))]
    for index in np.lexsort((near.second, near.distance)).tolist():
        result[int(near.first[index])].append(int(near.second[index]))
    return result


def incremental_matching(neighbors: Neighbors, order: Sequence[int]) -> NDArray[np.bool_]:
    """Tell for each detection, added in `order`, whether it raises the largest matching.

    Args:
        neighbors: of all detections (n).
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
            for truth in neighbors[current]:
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

    adds = np.zeros(len(neighbors), dtype=bool)
    for detection in order:
        if neighbors[detection]:
            adds[detection] = place(detection)
    return adds


@dataclass(frozen=True)
class RankedDetections:
    """Detections of many images in one ranking, highest score first.

    Attributes:
        score: (n,), descending.
        matched: (n,) bool, whether the detection adds a true positive to those above it.
        mitoses: in all images.
        images: how many there are, with or without detections.
        ignored: (n,) bool, whether the detection adds no true positive and lies at an unsure cell.
    """

    score: NDArray[np.float64]
    matched: NDArray[np.bool_]
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


def rank(
    images: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any], float, NDArray[Any]]],
) -> RankedDetections:
    """Rank the detections of all images by score.

    Args:
        images: of each, detections (n, 2) and their scores (n,), mitoses (m, 2), the distance in
            px within which they match, and unsure cells (k, 2).

    Returns:
        The ranking, ties in the order given.
    """
    scores = [np.zeros(0)]
    matches, unsure = [np.zeros(0, bool)], [np.zeros(0, bool)]
    for detected_xy, score, truth_xy, distance_px, ignored_xy in images:
        near = neighbors_within(detected_xy, truth_xy, distance_px)
        order = np.argsort(-np.asarray(score, np.float64), kind="stable")
        scores.append(np.asarray(score, np.float64)[order])
        matches.append(incremental_matching(near, order.tolist())[order])
        unsure.append(is_near(detected_xy, ignored_xy, distance_px)[order])
    every, matched = np.concatenate(scores), np.concatenate(matches)
    ignored = np.concatenate(unsure) & ~matched
    order = np.argsort(-every, kind="stable")
    return RankedDetections(
        score=every[order],
        matched=matched[order],
        mitoses=sum(len(image[2]) for image in images),
        images=len(images),
        ignored=ignored[order],
    )
