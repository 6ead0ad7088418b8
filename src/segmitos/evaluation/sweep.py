"""Counts at every score threshold at once, exactly.

Under one-to-one matching the number of hits is the size of the largest matching, and a largest
matching grows by at most one with each detection that is added. So one pass over the detections
from the highest score down, with an augmenting path for each (Kuhn), says of each detection whether
it adds a hit; the hits at any threshold are the sum of those marks down to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Neighbours = Sequence[Sequence[int]]


def neighbours_within(
    detected_xy: NDArray[Any], truth_xy: NDArray[Any], distance_px: float
) -> list[list[int]]:
    """Return, for each detection, the mitoses within the distance, nearest first."""
    if not len(detected_xy) or not len(truth_xy):
        return [[] for _ in range(len(detected_xy))]
    from scipy.spatial import cKDTree

    truth = np.asarray(truth_xy, dtype=np.float64)
    result: list[list[int]] = []
    near: Any = cKDTree(truth).query_ball_point(detected_xy, distance_px * (1 + 1e-9))
    for position, indices in zip(detected_xy, near, strict=True):
        apart = np.hypot(*(truth[indices] - position).T) if indices else np.zeros(0)
        ranked = sorted(zip(apart.tolist(), indices, strict=True))
        result.append([index for value, index in ranked if value <= distance_px])
    return result


def added_hits(neighbours: Neighbours, order: Sequence[int]) -> NDArray[np.bool_]:
    """Tell for each detection, added in `order`, whether it raises the largest matching.

    Args:
        neighbours: of all detections (n).
        order: indices of the detections that take part, first added first.

    Returns:
        (n,) bool, False for those that take no part.
    """
    holder: dict[int, int] = {}
    held: dict[int, int] = {}

    def place(detection: int) -> bool:
        # Breadth first, so that a long chain in a dense cluster cannot exhaust the stack.
        came_from: dict[int, int] = {}
        queue = [detection]
        for current in queue:
            for truth in neighbours[current]:
                if truth in came_from:
                    continue
                came_from[truth] = current
                if truth in holder:
                    queue.append(holder[truth])
                    continue
                free: int | None = truth
                while free is not None:
                    mover = came_from[free]
                    holder[free] = mover
                    left = held.get(mover)
                    held[mover] = free
                    free = left
                return True
        return False

    adds = np.zeros(len(neighbours), dtype=bool)
    for detection in order:
        if neighbours[detection]:
            adds[detection] = place(detection)
    return adds


@dataclass(frozen=True)
class Ranked:
    """Detections of many images in one ranking, highest score first.

    Attributes:
        score: (n,), descending.
        hit: (n,) bool, whether the detection adds a hit to those above it.
        image: (n,) index of its image.
        mitoses: in all images.
        images: how many there are, with or without detections.
    """

    score: NDArray[np.float64]
    hit: NDArray[np.bool_]
    image: NDArray[np.intp]
    mitoses: int
    images: int

    def at_distinct_scores(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (thresholds descending, tp, fp), where a detection counts from its score on."""
        if not len(self.score):
            return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
        last = np.flatnonzero(np.diff(self.score, append=-np.inf))
        tp = np.cumsum(self.hit)[last].astype(np.int64)
        return self.score[last], tp, last + 1 - tp


def rank(
    images: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any], float]],
) -> Ranked:
    """Rank the detections of all images by score.

    Args:
        images: (detected_xy (n, 2), score (n,), truth_xy (m, 2), distance_px) of each.

    Returns:
        The ranking, ties in the order given.
    """
    scores: list[NDArray[np.float64]] = []
    hits: list[NDArray[np.bool_]] = []
    owners: list[NDArray[np.intp]] = []
    for index, (detected_xy, score, truth_xy, distance_px) in enumerate(images):
        order = np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")
        near = neighbours_within(detected_xy, truth_xy, distance_px)
        scores.append(np.asarray(score, dtype=np.float64)[order])
        hits.append(added_hits(near, order.tolist())[order])
        owners.append(np.full(len(order), index, dtype=np.intp))
    mitoses = sum(len(truth_xy) for _, _, truth_xy, _ in images)
    if not scores:
        return Ranked(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.intp), mitoses, 0)
    score, hit, owner = np.concatenate(scores), np.concatenate(hits), np.concatenate(owners)
    order = np.argsort(-score, kind="stable")
    return Ranked(score[order], hit[order], owner[order], mitoses, len(images))
