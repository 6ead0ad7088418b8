"""From a slide to its mitoses: view, tissue, stain, tiles, cascade, verifier, post-processing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.domain import MAX_SQUARES, SQUARE_PX, measure_domain
from segmitos.detection.model import Model
from segmitos.detection.postprocess import (
    Blobs,
    MapAccumulator,
    Thresholds,
)
from segmitos.detection.prediction import predict_tiles, select_tiles
from segmitos.detection.spec import ModelSpec
from segmitos.detection.tiling import Tile
from segmitos.detection.tissue import TissueMask, find_tissue
from segmitos.detection.view import SlideView
from segmitos.errors import UsageError
from segmitos.io.arguments import number_of, path_of, whole_of
from segmitos.io.files import display_path
from segmitos.io.geometry import rescale
from segmitos.io.points.candidates import Candidates
from segmitos.io.points.detections import Detections
from segmitos.io.points.geojson_features import point_ids
from segmitos.io.points.read_regions import regions_of_slide
from segmitos.io.points.regions import Regions
from segmitos.io.slide import Slide

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DetectOptions:
    """How to detect. None takes the model's own value."""

    mpp: float | None = None
    """Scale of the input, where the file does not say it."""
    override_mpp: bool = False
    """Use `mpp` even where the file says otherwise."""
    page: int | None = None
    """Number of the image of a TIFF, from 1; None takes the largest."""
    threshold: str | float | None = None
    """`otsu`, or the probability that separates mitoses from the rest."""
    min_score: float | None = None
    min_area_um2: float | None = None
    tissue: bool = True
    """False reads all of the slide."""
    roi: Path | None = None
    tile_px: int | None = None
    """Side of a tile at the model's scale; None chooses."""

    def thresholds(self, own: Thresholds) -> Thresholds:
        """Return the model's thresholds with those given over them."""
        changes: dict[str, Any] = {}
        if self.threshold is not None:
            changes["threshold"] = parse_threshold(self.threshold)
        if self.min_score is not None:
            changes["min_score"] = number_of(self.min_score, "min_score")
        if self.min_area_um2 is not None:
            changes["min_area_um2"] = number_of(self.min_area_um2, "min_area_um2")
        return replace(own, **changes)


def parse_threshold(value: str | float) -> str | float:
    """Return `otsu` or a probability. Raises UsageError for anything else."""
    if value == "otsu":
        return "otsu"
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"threshold {value!r} is neither 'otsu' nor a probability") from error


@dataclass(frozen=True)
class SlideResult:
    """What was found on one slide."""

    candidates: Candidates
    """Every blob down to `FLOOR`, whether kept or not."""
    thresholds: Thresholds
    threshold_value: float
    tissue: TissueMask
    mpp: float
    mpp_source: str
    width_px: int
    height_px: int
    device: str
    accumulator: MapAccumulator
    warnings: tuple[str, ...] = ()
    """What a user must know beside the result, one line each."""

    @property
    def detections(self) -> Detections:
        """The candidates that pass the thresholds."""
        return self.candidates.detections()


def detect(
    image: NDArray[np.uint8] | os.PathLike[str] | str,
    mpp: float | None = None,
    model: Model | Path | str | None = None,
    *,
    override_mpp: bool = False,
    page: int | None = None,
    threshold: float | str | None = None,
    min_score: float | None = None,
    min_area_um2: float | None = None,
    tissue: bool = True,
    roi: Path | str | None = None,
    tile_px: int | None = None,
) -> Detections:
    """Detect mitoses in one image.

    Args:
        image: (h, w, 3) uint8 RGB, or the path of an image or slide.
        mpp: um per pixel; needed for an array, and for a file that does not say.
        model: loaded, or the path of a model file, or `lite`, the built-in one; None takes that.
        override_mpp: use `mpp` even where the file says otherwise.
        page: number of the image of a TIFF, from 1; None takes the largest.
        threshold: probability that separates mitoses from the rest of the map, or `otsu`; None
            takes the model's own, as for the next two.
        min_score: mean probability of a mitosis.
        min_area_um2: area of a mitosis on the map.
        tissue: False reads all of the image, tissue or not.
        roi: GeoJSON of regions that the work is limited to, or a folder with one for each image.
        tile_px: side of a tile at the model's scale; None chooses.

    Returns:
        Detections in level-0 pixels, ordered by y, then x. `detect_slide` tells more: candidates,
        tissue.

    Warns:
        UserWarning: where scales differ, or the image is unlike what the model was trained on.

    Raises:
        InputError: for an image that cannot be read (ScaleError: whose scale is unknown).
        ModelError: for a model that cannot be used.
        UsageError: for a value that makes no sense.
    """
    if not isinstance(model, Model):
        model = Model.load(model)
    options = DetectOptions(
        mpp=mpp,
        override_mpp=override_mpp,
        page=page,
        threshold=threshold,
        min_score=min_score,
        min_area_um2=min_area_um2,
        tissue=tissue,
        roi=None if roi is None else path_of(roi, "roi"),
        tile_px=tile_px if tile_px is None else _side(tile_px),
    )
    if isinstance(image, str | os.PathLike):
        opened = Slide.open(path_of(image, "image"), mpp, override_mpp, page)
    else:
        opened = Slide.from_array(image, mpp)
    with opened as slide:
        result = detect_slide(slide, model, options)
        for warning in (*slide.warnings, *result.warnings):
            warnings.warn(warning, UserWarning, stacklevel=2)
    return result.detections


def _side(tile_px: int) -> int:
    side = whole_of(tile_px, "tile_px")
    if side < 1:
        raise UsageError(f"tile_px {side} must be 1 or more")
    return side


def detect_slide(
    slide: Slide,
    model: Model,
    options: DetectOptions,
    progress: Progress = lambda done, total: None,
    on_map: Callable[[NDArray[np.float32], Tile], None] | None = None,
) -> SlideResult:
    """Detect mitoses on an opened slide.

    Args:
        slide: of known scale.
        model: to run.
        options: thresholds, regions, tiles.
        progress: told (tiles done, tiles in all).
        on_map: given every written part of the smoothed map, for saving it.

    Raises:
        ScaleError: where the slide's scale is unknown, or far too coarse for the model.
        InputError: where it is damaged.
    """
    spec = model.spec
    thresholds = options.thresholds(spec.thresholds)
    regions = None if options.roi is None else regions_of_slide(options.roi, slide)
    view = SlideView(slide, spec.mpp)
    if regions is None:
        # The tissue is not known yet, but most large slides hold much of it.
        model.prewarm(view.width * view.height)
    tissue = find_tissue(view.overview(), regions, everywhere=not options.tissue)
    said = (*view.warnings, *_domain_warnings(view, tissue, spec))
    view = view.stain_matched(spec.stain, tissue)
    tiles = select_tiles(view, spec, tissue, options.tile_px)
    runtime = model.runtime_for(sum(tile.width * tile.height for tile in tiles))
    accumulator = MapAccumulator(spec.map_mpp, spec.stride)
    predicted = predict_tiles(tiles, view, runtime, tissue)
    for done, (tile, part, mask) in enumerate(predicted, start=1):
        accumulator.add(part, tile.column, tile.row, mask)
        if on_map is not None:
            on_map(part if mask is None else np.where(mask, part, np.float32(0)), tile)
        progress(done, len(tiles))
    # Making the reports of a large slide needs the memory.
    model.release()
    blobs = accumulator.blobs(thresholds.threshold)
    faint = accumulator.faint_blobs(thresholds.threshold)
    return SlideResult(
        candidates=_list_candidates(blobs, faint, thresholds, view, regions),
        thresholds=thresholds,
        threshold_value=blobs.threshold,
        tissue=tissue,
        mpp=slide.require_mpp(),
        mpp_source=slide.mpp_source,
        width_px=slide.width,
        height_px=slide.height,
        device=runtime.device,
        accumulator=accumulator,
        warnings=said,
    )


def _domain_warnings(view: SlideView, tissue: TissueMask, spec: ModelSpec) -> tuple[str, ...]:
    """Return what is unlike the model's training laboratories, in the slide's own staining."""
    if spec.domain is None:
        return ()
    features = measure_domain(view.squares_of_tissue(tissue, MAX_SQUARES, SQUARE_PX))
    return () if features is None else spec.domain.warnings(features, view.mpp)


def _list_candidates(
    blobs: Blobs, faint: Blobs, thresholds: Thresholds, view: SlideView, regions: Regions | None
) -> Candidates:
    """Return the blobs that lie in the regions, in level-0 pixels, ordered by y, then x."""

    def joined(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(blobs, name), getattr(faint, name)])

    x_px = rescale(joined("x_px"), view.ratio)
    y_px = rescale(joined("y_px"), view.ratio)
    order = np.lexsort((x_px, y_px))
    if regions is not None:
        order = order[regions.contains(np.stack([x_px[order], y_px[order]], axis=1))]
    x_px, y_px = x_px[order], y_px[order]
    name = display_path(view.slide.path.name)
    found = Candidates(
        ids=tuple(point_ids(np.stack([x_px, y_px], axis=1), name)),
        x_px=x_px,
        y_px=y_px,
        area_um2=joined("area_um2")[order],
        score=joined("score")[order],
        is_detection=np.zeros(len(order), bool),
        mpp=view.slide.require_mpp(),
        name=name,
    )
    return found.filtered(blobs.threshold, thresholds.min_area_um2, thresholds.min_score)
