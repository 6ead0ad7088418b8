"""Candidates by blue ratio and Laplacian, then a random forest: in the manner of IPAL.

After Irshad 2013 and Irshad, Jalali et al. 2013: the blue ratio brings out nuclei, the Laplacian of
a Gaussian finds dark blobs of a nucleus's size in it, and each is described by the shape of its
region, by its colors in several color spaces and by the texture of gray-level co-occurrence.

Against the original: a random forest takes the place of the decision tree, run-length features are
left out, and slides are matched in staining first, as detection with `lite` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.color import rgb2hed, rgb2hsv, rgb2lab
from skimage.feature import graycomatrix, graycoprops, peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from sklearn.ensemble import RandomForestClassifier

from experiments.sliding_window import best_apart
from segmitos.detection.stain import Stain, apply_lookup, stain_lookup
from segmitos.training.sampling import TrainingImage

MPP = 0.25
SIGMA_UM = 2.0
APART_UM = 4.0
WINDOW_PX = 64
TRUE_WITHIN_UM, FALSE_BEYOND_UM = 5.0, 7.5
NEGATIVES_PER_FIELD = 60
TREES = 300
LEVELS = 16
_TEXTURES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")


def blue_ratio(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """100 B / (1 + R + G) * 256 / (1 + R + G + B): high in nuclei, low in stroma and on glass."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    warm = red + green
    result: NDArray[np.float32] = 100 * blue / (1 + warm) * 256 / (1 + warm + blue)
    return result


def blob_response(ratio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Minus the Laplacian of the Gaussian, times sigma squared, at half the resolution."""
    height, width = (side // 2 * 2 for side in ratio.shape)
    half = ratio[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    sigma = SIGMA_UM / (2 * MPP)
    return np.asarray(-ndimage.gaussian_laplace(half, sigma) * sigma**2, np.float32)


def find_candidates(response: NDArray[np.float32], above: float) -> NDArray[np.float64]:
    """Maxima of the response, (n, 3) of x, y in pixels of the image and the response."""
    places = peak_local_max(
        response,
        min_distance=round(APART_UM / (2 * MPP)),
        threshold_abs=above,
        exclude_border=False,
    )
    x, y = places[:, 1] * 2 + 0.5, places[:, 0] * 2 + 0.5
    return np.stack([x, y, response[places[:, 0], places[:, 1]]], axis=1).astype(float)


def describe(image: NDArray[np.uint8], candidates: NDArray[np.float64]) -> NDArray[np.float32]:
    """Features of candidates (n, 3) of x, y and response; (n, features)."""
    half = WINDOW_PX // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
    corners = [(round(y), round(x)) for x, y, _ in candidates]
    windows = np.stack(
        [padded[top : top + WINDOW_PX, left : left + WINDOW_PX] for top, left in corners]
    )
    colors = colors_of(windows)
    grays = (windows[..., 0] // (256 // LEVELS)).astype(np.uint8)
    rows = [
        _features(color, gray, response)
        for color, gray, response in zip(colors, grays, candidates[:, 2], strict=True)
    ]
    return np.array(rows, np.float32)


def colors_of(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colors of every pixel, (..., 13): RGB, HSV, Lab, stains, blue ratio."""
    ratio = blue_ratio(windows)[..., None] / 100
    spaces = [windows / 255, rgb2hsv(windows), rgb2lab(windows), rgb2hed(windows), ratio]
    return np.concatenate(spaces, axis=-1).astype(np.float32)


def _features(
    window: NDArray[np.float32], gray: NDArray[np.uint8], response: float
) -> NDArray[np.float64]:
    ratio = ndimage.gaussian_filter(window[:, :, -1], 1.0)
    regions = label(ratio > threshold_otsu(ratio)) if np.ptp(ratio) > 0 else np.ones_like(ratio)
    regions = regions.astype(np.int32)
    half = WINDOW_PX // 2
    rows, columns = np.nonzero(regions)
    nearest = np.argmin((rows - half) ** 2 + (columns - half) ** 2)
    mask = regions == regions[rows[nearest], columns[nearest]]
    box = regionprops(mask.astype(np.uint8))[0]
    shape = [
        box.area,
        box.perimeter,
        box.eccentricity,
        box.solidity,
        box.extent,
        box.axis_major_length,
        box.axis_minor_length,
        4 * np.pi * box.area / max(box.perimeter, 1) ** 2,
    ]
    core, rest = window[mask], window[~mask]
    if not len(rest):
        rest = core
    colors = [core.mean(axis=0), core.std(axis=0), rest.mean(axis=0)]
    colors.append(np.percentile(core, (10, 90), axis=0).ravel())
    middle = slice(half - 16, half + 16)
    pairs = graycomatrix(
        gray[middle, middle], [1, 3], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], LEVELS, True, True
    )
    textures = [graycoprops(pairs, kind).mean(axis=1) for kind in _TEXTURES]
    return np.concatenate([[response], shape, *colors, *textures])


def matched(source: TrainingImage, target: Stain | None) -> NDArray[np.uint8]:
    """The image in the common staining."""
    if source.stain is None or target is None:
        return source.image
    return apply_lookup(np.ascontiguousarray(source.image), stain_lookup(source.stain, target))


class CandidateForest:
    """Finds and classifies; `above` is the response that 95 % of the training mitoses reach."""

    def __init__(self, seed: int, target: Stain | None) -> None:
        self.seed = seed
        self.target = target
        self.above = 0.0
        self.forest: Any = RandomForestClassifier(
            TREES,
            min_samples_leaf=2,
            class_weight="balanced_subsample",
            random_state=seed,
            n_jobs=1,
        )

    def fit(self, sources: Sequence[TrainingImage]) -> None:
        rng = np.random.default_rng(self.seed)
        responses = [blob_response(blue_ratio(matched(s, self.target))) for s in sources]
        self.above = self._response_of_mitoses(sources, responses)
        features, targets = [], []
        for source, response in zip(sources, responses, strict=True):
            found = find_candidates(response, self.above)
            positive, negative = sides(found[:, :2], source.mitoses_xy)
            negative = self._some(found, negative, source, rng)
            chosen = np.concatenate([positive, negative])
            if not len(chosen):
                continue
            features.append(describe(matched(source, self.target), found[chosen]))
            targets += [1] * len(positive) + [0] * len(negative)
        self.forest.fit(np.concatenate(features), targets)
        others = len(targets) - sum(targets)
        print(f"forest: {sum(targets)} mitoses, {others} others, from {self.above:.1f}", flush=True)

    def _response_of_mitoses(
        self, sources: Sequence[TrainingImage], responses: Sequence[NDArray[np.float32]]
    ) -> float:
        reached = []
        for source, response in zip(sources, responses, strict=True):
            if not len(source.mitoses_xy):
                continue
            highest = ndimage.maximum_filter(response, round(TRUE_WITHIN_UM / MPP))
            columns, rows = np.rint(source.mitoses_xy / 2).astype(int).T
            rows = rows.clip(0, response.shape[0] - 1)
            reached += highest[rows, columns.clip(0, response.shape[1] - 1)].tolist()
        return float(np.percentile(reached, 5))

    def _some(
        self,
        found: NDArray[np.float64],
        negative: NDArray[np.intp],
        source: TrainingImage,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """All labeled look-alikes, and as many others as a field may give."""
        if len(negative) <= NEGATIVES_PER_FIELD:
            return negative
        alike = negative[:0]
        if len(source.hard_negatives_xy):
            apart, _ = cKDTree(source.hard_negatives_xy).query(found[negative, :2])
            alike = negative[apart <= TRUE_WITHIN_UM / MPP]
        others = rng.choice(negative, NEGATIVES_PER_FIELD, replace=False)
        return np.union1d(alike, others)

    def detect(self, source: TrainingImage) -> NDArray[np.float64]:
        """(n, 3) of x, y in pixels and the forest's probability."""
        image = matched(source, self.target)
        found = find_candidates(blob_response(blue_ratio(image)), self.above)
        if not len(found):
            return np.zeros((0, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            score = self.forest.predict_proba(describe(image, found))[:, 1]
        return best_apart(np.column_stack([found[:, :2], score]), FALSE_BEYOND_UM / MPP)


def sides(
    points_xy: NDArray[np.float64], mitoses_xy: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which points are mitoses and which are surely none."""
    if not len(mitoses_xy) or not len(points_xy):
        return np.zeros(0, np.intp), np.arange(len(points_xy))
    apart, _ = cKDTree(mitoses_xy).query(points_xy)
    true = np.flatnonzero(apart <= TRUE_WITHIN_UM / MPP)
    return true, np.flatnonzero(apart > FALSE_BEYOND_UM / MPP)
