"""One slide, streaming: reading runs ahead of the network, the network ahead of the blobs.

At any moment a few tiles are in memory, never the slide and never its map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.model import Model
from segmitos.detection.postprocess import (
    Blobs,
    MapAccumulator,
    Thresholds,
    smooth,
    smoothing_radius,
)
from segmitos.detection.regions import Regions, regions_of_slide
from segmitos.detection.spec import ModelSpec
from segmitos.detection.tiling import Tile, cut_tiles, side_for, trimmed
from segmitos.detection.tissue import TissueMask, tissue_mask
from segmitos.detection.view import SlideView
from segmitos.errors import UsageError
from segmitos.io.geometry import rescale
from segmitos.io.points.candidates import Candidates
from segmitos.io.points.detections import Detections
from segmitos.io.points.geojson_features import point_ids
from segmitos.io.slide import Slide

# Threads that read and decode ahead of the network.
READERS = 2

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
            changes["min_score"] = float(self.min_score)
        if self.min_area_um2 is not None:
            changes["min_area_um2"] = float(self.min_area_um2)
        return replace(own, **changes)


def parse_threshold(value: str | float) -> str | float:
    """Return `otsu` or a probability. Raises UsageError for anything else."""
    if value == "otsu":
        return "otsu"
    try:
        return float(value)
    except ValueError as error:
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
    image: NDArray[np.uint8] | Path | str,
    mpp: float | None = None,
    model: Model | Path | str | None = None,
    **options: Any,
) -> Detections:
    """Detect mitoses in one image.

    Args:
        image: (h, w, 3) uint8 RGB, or the path of an image or slide.
        mpp: um per pixel; needed for an array, and for a file that does not say.
        model: loaded, or the path of a model file; None takes the default model.
        **options: of `DetectOptions`.

    Returns:
        Detections in level-0 pixels.

    Raises:
        SegMitosError: InputError, ScaleError, ModelError or UsageError, as the case may be.
    """
    unknown = set(options) - set(DetectOptions.__dataclass_fields__)
    if unknown:
        raise UsageError(f"detect has no option {sorted(unknown)[0]!r}")
    if not isinstance(model, Model):
        model = Model.load(model)
    if isinstance(image, str | Path):
        override, page = bool(options.get("override_mpp")), options.get("page")
        opened = Slide.open(image, mpp, override, page)
    else:
        opened = Slide.from_array(np.asarray(image), mpp)
    with opened as slide:
        return detect_slide(slide, model, DetectOptions(mpp=mpp, **options)).detections


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
        ScaleError: where the slide's scale is unknown; InputError: where it is damaged.
    """
    spec = model.spec
    thresholds = options.thresholds(spec.thresholds)
    view = SlideView(slide, spec.mpp)
    regions = None if options.roi is None else regions_of_slide(options.roi, slide)
    if regions is None:
        # Most slides that are large hold much tissue.
        model.prewarm(view.width * view.height)
    tissue = tissue_mask(slide, regions, options.tissue, view.overview())
    view.match_stain(spec.stain, tissue)
    cell_um = spec.mpp * spec.stride
    accumulator = MapAccumulator(cell_um, spec.stride)
    tiles = _tiles(view, spec, tissue, options.tile_px)
    work_px = sum(tile.width * tile.height for tile in tiles)
    runtime = model.runtime_for(work_px)
    predicted = _predict_tiles(tiles, view, runtime)
    for done, (tile, probability) in enumerate(zip(tiles, predicted, strict=True)):
        counted = tissue.cells(tile.column, tile.row, tile.columns, tile.rows, cell_um)
        smoothed = smooth(probability, spec.smoothing_sigma_um, accumulator.map_mpp)
        column, row = tile.column - tile.x // spec.stride, tile.row - tile.y // spec.stride
        part = smoothed[row : row + tile.rows, column : column + tile.columns]
        accumulator.add(part, tile.column, tile.row, counted)
        if on_map is not None:
            on_map(part if counted is None else np.where(counted, part, np.float32(0)), tile)
        progress(done + 1, len(tiles))
    # What is left to do, the reports of a large slide first of all, has the memory to itself.
    model.release()
    blobs = accumulator.blobs(thresholds.threshold)
    return SlideResult(
        candidates=_list_candidates(
            blobs, accumulator.faint_blobs(thresholds.threshold), thresholds, view, regions
        ),
        thresholds=thresholds,
        threshold_value=blobs.threshold,
        tissue=tissue,
        mpp=slide.require_mpp(),
        mpp_source=slide.mpp_source,
        width_px=slide.width,
        height_px=slide.height,
        device=runtime.device,
        accumulator=accumulator,
    )


def _tiles(view: SlideView, spec: ModelSpec, tissue: TissueMask, tile_px: int | None) -> list[Tile]:
    """Return the tiles that hold any tissue, cut to it."""
    cell_um = spec.mpp * spec.stride
    context_px = spec.context_px + smoothing_radius(spec.smoothing_sigma_um, cell_um) * spec.stride
    side = tile_px or side_for(view.width, view.height, context_px)
    chosen = []
    for tile in cut_tiles(view.width, view.height, side, context_px, spec.stride):
        counted = tissue.cells(tile.column, tile.row, tile.columns, tile.rows, cell_um)
        if counted is None:
            chosen.append(tile)
        elif counted.any():
            chosen.append(trimmed(tile, counted, view.width, view.height, context_px, spec.stride))
    return chosen


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
    name = view.slide.path.name
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


def _predict_tiles(
    tiles: Sequence[Tile], view: SlideView, model: Model
) -> Iterator[NDArray[np.float32]]:
    """Yield the map of each tile, in order; tiles are read ahead while one is in the network."""
    spec = model.spec
    radius = smoothing_radius(spec.smoothing_sigma_um, spec.mpp * spec.stride)

    def load(tile: Tile) -> NDArray[np.uint8]:
        return view.read(tile.x, tile.y, tile.width, tile.height)

    def predict(tile: Tile, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        box = tile.output_box(spec.stride, radius * spec.stride)
        map_: NDArray[np.float32] = model.predict(image[None], box, (tile.x, tile.y))[0]
        return map_

    if len(tiles) == 1:
        # A single field: threads would only cost their start.
        yield predict(tiles[0], load(tiles[0]))
        return
    ahead = READERS + model.streams
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(model.streams) as network:
        upcoming = iter(tiles)
        reading: deque[tuple[Tile, Future[NDArray[np.uint8]]]] = deque()
        running: deque[Future[NDArray[np.float32]]] = deque()
        try:
            reading.extend((tile, readers.submit(load, tile)) for tile in islice(upcoming, ahead))
            while reading:
                tile, loading = reading.popleft()
                image = loading.result()
                following = next(upcoming, None)
                if following is not None:
                    reading.append((following, readers.submit(load, following)))
                running.append(network.submit(predict, tile, image))
                if len(running) > model.streams:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for _, pending in reading:
                pending.cancel()
