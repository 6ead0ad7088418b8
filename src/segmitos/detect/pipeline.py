"""One slide, streaming: reading runs ahead of the network, the network ahead of the blobs.

At any moment a few tiles are in memory, never the slide and never its map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detect.colour import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.detect.mitoses import MapAccumulator, Thresholds, smooth, smoothing_radius
from segmitos.detect.model import Model
from segmitos.detect.tiling import Tile, padded, side_for, tile_plane
from segmitos.detect.tissue import TissueMask, tissue_mask
from segmitos.errors import UsageError
from segmitos.io.detections import Detections
from segmitos.io.slide import Slide

# Images of up to this many pixels go through the network as one tile.
WHOLE_UP_TO_PX = 5_000_000
TILE_PX = 2048
_STAIN_MPP = 2.0
_STAIN_SIDE_PX = 2048

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DetectOptions:
    """How to detect. None takes the model's own value."""

    mpp: float | None = None
    """Scale of the input, where the file does not say it; overrides the file."""
    binarisation: str | float | None = None
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
        if self.binarisation is not None:
            changes["binarisation"] = parse_binarisation(self.binarisation)
        if self.min_score is not None:
            changes["min_score"] = float(self.min_score)
        if self.min_area_um2 is not None:
            changes["min_area_um2"] = float(self.min_area_um2)
        return replace(own, **changes)


def parse_binarisation(value: str | float) -> str | float:
    """Return `otsu` or a probability. Raises UsageError for anything else."""
    if value == "otsu":
        return "otsu"
    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f"binarisation {value!r} is neither 'otsu' nor a probability") from error


@dataclass(frozen=True)
class SlideResult:
    """What was found on one slide."""

    detections: Detections
    thresholds: Thresholds
    binarisation_value: float
    tissue: TissueMask
    mpp: float
    mpp_source: str
    width_px: int
    height_px: int
    accumulator: MapAccumulator


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
        model = Model.load(None if model is None else Path(model))
    if isinstance(image, str | Path):
        opened = Slide.open(Path(image), mpp=mpp)
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
    mpp = slide.require_mpp()
    ratio = spec.mpp / mpp
    thresholds = options.thresholds(spec.thresholds)
    width = max(1, int(slide.width / ratio + 1e-6))
    height = max(1, int(slide.height / ratio + 1e-6))
    tissue = tissue_mask(slide, options.roi, options.tissue)
    table = _lookup(slide, spec.colour)
    map_mpp = spec.mpp * spec.stride
    side = options.tile_px or side_for(width, height, TILE_PX, WHOLE_UP_TO_PX)
    reach = smoothing_radius(spec.smoothing_sigma_um, map_mpp) * spec.stride
    tiles = [
        tile
        for tile in tile_plane(width, height, side, spec.context_px + reach, spec.stride)
        if tissue.touches(*_written_um(tile, spec.stride, spec.mpp))
    ]
    accumulator = MapAccumulator(map_mpp, spec.stride)

    def load(tile: Tile) -> NDArray[np.uint8]:
        return _read_tile(slide, tile, ratio, spec.mpp, table, (width, height))

    for done, (tile, probability) in enumerate(_predicted(tiles, load, model)):
        smoothed = smooth(probability, spec.smoothing_sigma_um, map_mpp)
        column, row = tile.column - tile.x // spec.stride, tile.row - tile.y // spec.stride
        part = smoothed[row : row + tile.rows, column : column + tile.columns]
        accumulator.add(part, tile.column, tile.row)
        if on_map is not None:
            on_map(part, tile)
        progress(done + 1, len(tiles))
    blobs = accumulator.blobs(thresholds.binarisation)
    keep = blobs.keep(thresholds)
    x_um, y_um = (blobs.x_px + 0.5) * spec.mpp, (blobs.y_px + 0.5) * spec.mpp
    if options.roi is not None:
        keep &= tissue.inside(x_um, y_um)
    detections = Detections(
        x_px=(blobs.x_px[keep] + 0.5) * ratio - 0.5,
        y_px=(blobs.y_px[keep] + 0.5) * ratio - 0.5,
        area_um2=blobs.area_um2[keep],
        score=blobs.score[keep],
        mpp=mpp,
        name=slide.path.name,
    )
    return SlideResult(
        detections,
        thresholds,
        blobs.threshold,
        tissue,
        mpp,
        slide.mpp_source,
        slide.width,
        slide.height,
        accumulator,
    )


def _written_um(tile: Tile, stride: int, mpp: float) -> tuple[float, float, float, float]:
    size = stride * mpp
    return tile.column * size, tile.row * size, tile.columns * size, tile.rows * size


def _lookup(slide: Slide, target: Stain | None) -> NDArray[np.uint8] | None:
    """The table that matches the slide's stain to the model's; the same for all its tiles."""
    if target is None:
        return None
    longest = max(slide.width, slide.height)
    wanted = round(longest * slide.require_mpp() / _STAIN_MPP)
    stain = od_statistics(slide.thumbnail(max(1, min(_STAIN_SIDE_PX, wanted))))
    return None if stain is None else stain_lookup(stain, target)


def _read_tile(
    slide: Slide,
    tile: Tile,
    ratio: float,
    mpp: float,
    table: NDArray[np.uint8] | None,
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """Read a tile with its context; past the plane's last pixel it is white for every tiling."""
    inside_width = min(tile.width, size[0] - tile.x)
    inside_height = min(tile.height, size[1] - tile.y)
    pixels = slide.read(tile.x * ratio, tile.y * ratio, inside_width, inside_height, mpp=mpp)
    if table is not None:
        pixels = apply_lookup(pixels, table)
    if (inside_width, inside_height) == (tile.width, tile.height):
        return pixels
    whole = np.full((padded(tile.height), padded(tile.width), 3), 255, np.uint8)
    whole[:inside_height, :inside_width] = pixels
    return whole


def _predicted(
    tiles: list[Tile], load: Callable[[Tile], NDArray[np.uint8]], model: Model
) -> Iterator[tuple[Tile, NDArray[np.float32]]]:
    """Yield each tile with its map, in order; two tiles are read ahead, one is in the network."""
    if len(tiles) == 1:
        # A single field: threads would only cost their start.
        yield tiles[0], model.predict(load(tiles[0])[None])[0]
        return
    with ThreadPoolExecutor(2) as readers, ThreadPoolExecutor(1) as network:
        reading: deque[tuple[Tile, Future[NDArray[np.uint8]]]] = deque()
        running: tuple[Tile, Future[NDArray[np.float32]]] | None = None
        upcoming = iter(tiles)
        try:
            for tile in upcoming:
                reading.append((tile, readers.submit(load, tile)))
                if len(reading) >= 3:
                    break
            while reading:
                tile, pixels = reading.popleft()
                image = pixels.result()
                following = next(upcoming, None)
                if following is not None:
                    reading.append((following, readers.submit(load, following)))
                submitted = network.submit(lambda batch: model.predict(batch)[0], image[None])
                if running is not None:
                    yield running[0], running[1].result()
                running = (tile, submitted)
            if running is not None:
                yield running[0], running[1].result()
        finally:
            for _, pending in reading:
                pending.cancel()
