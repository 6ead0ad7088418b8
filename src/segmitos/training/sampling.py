"""Crops for training: mitoses, look-alikes, mined errors and background, in fixed fractions.

A sample is a function of (seed, step, index) alone, so a training that was killed and resumed is
bit-identical with one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from segmitos.detection.stain import (
    Stain,
    apply_lookup,
    od_statistics,
    stain_lookup,
    tissue_pixels,
)
from segmitos.detection.view import check_scale, stain_pixels
from segmitos.errors import DataError
from segmitos.io.datasets import Case
from segmitos.io.datasets.masks import read_mask
from segmitos.io.geometry import rescale
from segmitos.training.augment import (
    Augmentation,
    augment_scanner,
    augment_stain,
    draw_shift,
    draw_transform,
    warp,
)
from segmitos.training.concentric import IGNORED, LabelRecipe, concentric_label
from segmitos.training.recipe import Recipe

# How far a sample's center may lie from that of a crop of `crops` data sets.
CROP_SHIFT_UM = 6.0
IGNORE_RADIUS_UM = 6.0
# The four parts of a mosaic meet in the middle, or this far beside it.
_MOSAIC_STEP_PX = 16
_PLACED = ("mitosis", "centered", "hard_negative", "mined")
# The place of such a crop is drawn anew each time.
_ANYWHERE = ("background", "external_background")
_KINDS = _PLACED + _ANYWHERE

Sample = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A crop (h, w, 3) and its label (h / stride, w / stride)."""


@dataclass
class TrainingImage:
    """One image in memory at the model's scale, positions in its pixels."""

    name: str
    slide: str
    image: NDArray[np.uint8]
    mitoses_xy: NDArray[np.float64]
    hard_negatives_xy: NDArray[np.float64]
    centered: bool
    mask: NDArray[np.uint8] | None = None
    stain: Stain | None = None
    mined_xy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    ignored_xy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """Unsure cells and doubtful peaks: neither mitosis nor background, ignored around."""
    reviewed: NDArray[np.uint8] | None = None
    """(height, width), 1 where every mitosis is marked; nothing elsewhere teaches. None: all."""
    radii_px: NDArray[np.float64] | None = None
    """Of the things at `mitoses_xy`, where they have a size of their own (masses)."""
    warnings: tuple[str, ...] = ()
    """What a user should know of its scale, a line each."""
    mpp: float = 0.25
    """Um per pixel."""
    ratio: float = 1.0
    """Level-0 pixels of its file per pixel."""
    group: str = ""
    """What is never divided (`Case.group`): its slide where it is empty."""

    def is_reviewed(self, points_xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points (n, 2) lie where every mitosis is marked."""
        if self.reviewed is None:
            return np.ones(len(points_xy), np.bool_)
        rows, columns = self.reviewed.shape
        column, row = np.rint(points_xy).astype(int).T
        inside: NDArray[np.bool_] = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        inside[inside] = self.reviewed[row[inside], column[inside]] > 0
        return inside

    def matched(self, target: Stain | None) -> NDArray[np.uint8]:
        """Return the image with its slide's staining moved onto a target, as detection does."""
        if self.stain is None or target is None:
            return self.image
        return apply_lookup(np.ascontiguousarray(self.image), stain_lookup(self.stain, target))


def load_training_images(cases: Sequence[Case], mpp: float) -> list[TrainingImage]:
    """Read cases at `mpp` and measure the stain of each slide.

    Raises:
        InputError: for an image that cannot be read, ScaleError for one whose scale is unknown or
            far too coarse.
    """
    sources = []
    for case in cases:
        with case.open_image() as slide:
            own = slide.require_mpp()
            warnings = (*slide.warnings, *check_scale(slide, own, mpp))
            ratio = mpp / own
            width = max(1, int(slide.width / ratio))
            height = max(1, int(slide.height / ratio))
            image = slide.read(0, 0, width, height, mpp=mpp)
        mask, reviewed = None, None
        if case.mask is not None:
            mask = read_mask(case.mask, (width, height)).astype(np.uint8)
        if case.regions is not None:
            reviewed = case.regions.mask(1 / ratio, (height, width)).astype(np.uint8)
        sources.append(
            TrainingImage(
                name=case.name,
                slide=case.slide,
                image=image,
                mitoses_xy=rescale(case.mitoses_xy.reshape(-1, 2), 1 / ratio),
                hard_negatives_xy=rescale(case.hard_negatives_xy.reshape(-1, 2), 1 / ratio),
                centered=case.centered_crop,
                mask=mask,
                ignored_xy=rescale(case.unsure_xy.reshape(-1, 2), 1 / ratio),
                reviewed=reviewed,
                radii_px=None if case.radii_px is None else np.asarray(case.radii_px) / ratio,
                warnings=tuple(f"{case.name}: {warning}" for warning in warnings),
                mpp=mpp,
                ratio=ratio,
                group=case.group,
            )
        )
    _measure_stains(sources)
    return sources


def warnings_of(images: Iterable[TrainingImage]) -> list[str]:
    """Return the warnings of all images."""
    return [warning for image in images for warning in image.warnings]


def _measure_stains(sources: Sequence[TrainingImage]) -> None:
    """One stain a slide, from a sixteenth of the pixels of all its images."""
    by_slide: dict[str, list[TrainingImage]] = {}
    for source in sources:
        by_slide.setdefault(source.slide, []).append(source)
    for members in by_slide.values():
        pixels = np.concatenate([stain_pixels(member.image, member.mpp, 4) for member in members])
        stain = od_statistics(pixels)
        for member in members:
            member.stain = stain


def common_stain(sources: Sequence[TrainingImage]) -> Stain | None:
    """Measure the staining that slides are matched to: that of the fields, or of all there is."""
    fields = [source for source in sources if not source.centered] or list(sources)
    pixels = [stain_pixels(source.image, source.mpp, 8) for source in fields]
    return od_statistics(np.concatenate(pixels)) if pixels else None


class CropSampler:
    """Draws samples from sources by the fractions of the recipe."""

    def __init__(self, sources: Sequence[TrainingImage], recipe: Recipe, stride: int) -> None:
        if not any(len(source.mitoses_xy) or source.mask is not None for source in sources):
            raise DataError("the training cases hold no mitosis; check --cases and --exclude")
        _check_labels(sources, recipe.labels)
        self.sources = list(sources)
        self.recipe = recipe
        self.stride = stride
        stains = {source.slide: source.stain for source in sources if source.stain is not None}
        self.pool = [stains[slide] for slide in sorted(stains)]
        self.target = common_stain(sources)
        self.update()

    def update(self) -> None:
        """Rebuild the lists of places after the sources' mined points have changed."""
        self.places: dict[str, list[tuple[int, float, float]]] = {kind: [] for kind in _PLACED}
        """Of each kind: which source, x and y."""
        self._anywhere: dict[str, list[int]] = {kind: [] for kind in _ANYWHERE}
        for index, source in enumerate(self.sources):
            for kind, points in (
                ("centered" if source.centered else "mitosis", source.mitoses_xy),
                ("hard_negative", source.hard_negatives_xy),
                ("mined", source.mined_xy),
            ):
                inside = points[source.is_reviewed(points)]
                self.places[kind].extend((index, float(x), float(y)) for x, y in inside)
            if source.reviewed is None or source.reviewed.any():
                self._anywhere[_ANYWHERE[source.centered]].append(index)
        members = {**self.places, **self._anywhere}
        sampling = self.recipe.sampling
        fractions = np.array([getattr(sampling, k) if members[k] else 0.0 for k in _KINDS])
        if fractions.sum() == 0:
            raise DataError("the sampling fractions leave nothing to draw from these cases")
        self._fractions = fractions / fractions.sum()

    def sample(self, step: int, index: int) -> Sample:
        """Return sample `index` of batch `step`: the same whenever it is asked for."""
        rng = np.random.default_rng((self.recipe.seed, step, index))
        mosaic = self.recipe.sampling.mosaic
        if mosaic and rng.random() < mosaic:
            return self._mosaic(rng)
        chosen = self._choose(rng)
        if mosaic and chosen[1].centered:
            return self._mosaic(rng)
        return self._draw(rng, self.recipe.crop_size_px, *chosen)

    def _mosaic(self, rng: np.random.Generator) -> Sample:
        """Return four parts of different places, set together at a point near the middle."""
        width, height = self.recipe.crop_size_px
        left, top = (
            side // 2 + _MOSAIC_STEP_PX * int(rng.integers(-1, 2)) for side in (width, height)
        )
        rows = [
            [
                self._draw(rng, (across, down), *self._choose(rng), within=True)
                for across in (left, width - left)
            ]
            for down in (top, height - top)
        ]
        image, label = (
            np.concatenate([np.concatenate([part[which] for part in row], 1) for row in rows])
            for which in range(2)
        )
        return image, label

    def _choose(self, rng: np.random.Generator) -> tuple[str, TrainingImage, tuple[float, float]]:
        """Return a kind by its fraction, and one of its places: the source, x and y."""
        kind = _KINDS[rng.choice(len(_KINDS), p=self._fractions)]
        if kind in _ANYWHERE:
            images = self._anywhere[kind]
            source = self.sources[images[rng.integers(len(images))]]
            x, y = _tissue_place(source, rng)
        else:
            places = self.places[kind]
            which, x, y = places[rng.integers(len(places))]
            source = self.sources[which]
        return kind, source, (x, y)

    def _draw(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        kind: str,
        source: TrainingImage,
        place: tuple[float, float],
        within: bool = False,
    ) -> Sample:
        """Return a sample of (width, height); `within`: of pixels of its source alone."""
        x, y = place
        shift = self.recipe.sampling.shift_px
        if kind == "centered" and not within:
            # Only 16 um lie between such a crop's center and its border.
            shift = min(shift, round(CROP_SHIFT_UM / self.recipe.mpp))
        augmentation = self.recipe.augmentation
        if kind in ("hard_negative", "mined", *_ANYWHERE):
            augmentation = self.recipe.background_augmentation or augmentation
        if within and augmentation.rotations not in (1, 2, 4):
            # At other angles the corners would have to be made up.
            augmentation = msgspec.structs.replace(augmentation, rotations=4)
        right, down = draw_shift(augmentation, shift, rng)
        x, y = x + right, y + down
        if within:
            rows, columns = source.image.shape[:2]
            reach = max(size) / 2 * (1 + augmentation.scale)
            x, y = _inside(x, columns, reach), _inside(y, rows, reach)
        return self._cut(source, (x, y), augmentation, rng, size)

    def _cut(
        self,
        source: TrainingImage,
        center: tuple[float, float],
        augmentation: Augmentation,
        rng: np.random.Generator,
        size: tuple[int, int],
    ) -> Sample:
        recipe = self.recipe
        matrix = draw_transform(augmentation, rng)
        width, height = size
        places = np.concatenate([source.mitoses_xy, source.ignored_xy])
        crop, moved, valid = warp(source.image, places, center, matrix, (width, height))
        points, ignored_points = np.split(moved, [len(source.mitoses_xy)])
        # Black padding at a slide's edge tells nothing of tissue.
        valid &= np.maximum(np.maximum(crop[:, :, 0], crop[:, :, 1]), crop[:, :, 2]) > 4
        shape = (height // self.stride, width // self.stride)
        offset = self.stride // 2
        zoom = float(np.sqrt(abs(np.linalg.det(matrix))))
        per_px = recipe.mpp * zoom
        if recipe.labels.kind == "mask" and source.mask is not None:
            inside = _warp_mask(source.mask, center, matrix, size)
            label = inside[offset :: self.stride, offset :: self.stride].astype(np.uint8)
        else:
            own_um = None if source.radii_px is None else source.radii_px * recipe.mpp
            inner, outer = recipe.labels.draw_radii(len(points), rng, own_um)
            label = concentric_label(points, inner / per_px, outer / per_px, shape, self.stride)
        if len(ignored_points):
            around = np.full(len(ignored_points), IGNORE_RADIUS_UM / per_px)
            near = concentric_label(ignored_points, around, around, shape, self.stride)
            label[(near == 1) & (label == 0)] = IGNORED
        if source.reviewed is not None:
            valid &= _warp_mask(source.reviewed, center, matrix, size)
        label[~valid[offset :: self.stride, offset :: self.stride]] = IGNORED
        stained = augment_stain(crop, source.stain, self.pool, self.target, augmentation, rng)
        return augment_scanner(stained, augmentation, rng), label


def _check_labels(sources: Sequence[TrainingImage], labels: LabelRecipe) -> None:
    """Refuse labels that need what images with mitoses do not have. Raises DataError."""
    for source in sources:
        if not len(source.mitoses_xy):
            continue
        if labels.kind == "mask" and source.mask is None:
            raise DataError(
                f"{source.name} has no pixel mask, as labels kind = 'mask' needs; train on cases "
                "with masks alone, or with another kind of label, say 'random'"
            )
        if labels.kind != "mask" and labels.inner_fraction > 0 and source.radii_px is None:
            raise DataError(
                f"{source.name} has points without radii, of which labels inner_fraction = "
                f"{labels.inner_fraction:g} would be a fraction; set it to 0"
            )


def _warp_mask(
    mask: NDArray[np.uint8],
    center: tuple[float, float],
    matrix: NDArray[np.float64],
    size: tuple[int, int],
) -> NDArray[np.bool_]:
    """Move a mask of 0 and 1 as `warp` moves its image."""
    gray = np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)
    crop, _, _ = warp(gray, np.zeros((0, 2)), center, matrix, size)
    inside: NDArray[np.bool_] = crop[:, :, 0] > 127
    return inside


def _inside(place: float, length: int, reach: float) -> float:
    """Move a place so that `reach` on both sides lies inside; to the middle where it cannot."""
    last = length - 1 - reach
    return (length - 1) / 2 if last < reach else min(max(place, reach), last)


def _tissue_place(source: TrainingImage, rng: np.random.Generator) -> tuple[float, float]:
    """Pick a reviewed place in tissue; after ten tries on glass, any reviewed place."""
    height, width = source.image.shape[:2]
    x, y = 0.0, 0.0
    for _ in range(10):
        x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        row, column = int(y), int(x)
        if source.reviewed is not None and not source.reviewed[row, column]:
            x, y = _reviewed_place(source.reviewed, rng)
            row, column = int(y), int(x)
        patch = source.image[max(0, row - 16) : row + 16 : 4, max(0, column - 16) : column + 16 : 4]
        if tissue_pixels(patch).mean() > 0.5:
            break
    return x, y


def _reviewed_place(reviewed: NDArray[np.uint8], rng: np.random.Generator) -> tuple[float, float]:
    """Pick one of the reviewed pixels, all alike."""
    places = np.flatnonzero(reviewed)
    row, column = divmod(int(places[rng.integers(len(places))]), reviewed.shape[1])
    return float(column), float(row)
