"""The probability map of a slide, tile by tile in order; tiles are read ahead of the networks.

At any moment a few tiles are in memory, never the slide and never its map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.model import Model
from segmitos.detection.postprocess import smooth, smoothing_radius
from segmitos.detection.spec import ModelSpec
from segmitos.detection.tiling import Tile, cut_tiles, default_tile_size, shrink_to_tissue
from segmitos.detection.tissue import TissueMask
from segmitos.detection.view import SlideView
from segmitos.io.slide import READERS


def select_tiles(
    view: SlideView, spec: ModelSpec, tissue: TissueMask, tile_px: int | None = None
) -> list[Tile]:
    """Return the tiles of a view that hold any tissue, cut to it.

    Args:
        view: of the slide.
        spec: of the model: its stride, context and smoothing.
        tissue: of the slide.
        tile_px: side of a tile; None chooses.
    """
    radius = smoothing_radius(spec.smoothing_sigma_um, spec.map_mpp)
    context_px = spec.context_px + radius * spec.stride
    side = tile_px or default_tile_size(view.width, view.height, context_px)
    chosen = []
    for tile in cut_tiles(view.width, view.height, side, context_px, spec.stride):
        mask = tissue.on_map(tile.column, tile.row, tile.columns, tile.rows, spec.map_mpp)
        if mask is None:
            chosen.append(tile)
        elif mask.any():
            chosen.append(
                shrink_to_tissue(tile, mask, view.width, view.height, context_px, spec.stride)
            )
    return chosen


def predict_tiles(
    tiles: Sequence[Tile], view: SlideView, model: Model, tissue: TissueMask
) -> Iterator[tuple[Tile, NDArray[np.float32], NDArray[np.bool_] | None]]:
    """Yield each tile, the smoothed map of what it writes, and which of its pixels to work on.

    Args:
        tiles: of the view, from `select_tiles`.
        view: of the slide.
        model: to run.
        tissue: of the slide.

    Yields:
        In the order of the tiles; the map and the mask are (rows, columns), a mask None is all.
    """
    spec = model.spec
    for tile, probability in zip(tiles, _whole_maps(tiles, view, model), strict=True):
        mask = tissue.on_map(tile.column, tile.row, tile.columns, tile.rows, spec.map_mpp)
        smoothed = smooth(probability, spec.smoothing_sigma_um, spec.map_mpp)
        column, row = tile.column - tile.x // spec.stride, tile.row - tile.y // spec.stride
        yield tile, smoothed[row : row + tile.rows, column : column + tile.columns], mask


def _whole_maps(
    tiles: Sequence[Tile], view: SlideView, model: Model
) -> Iterator[NDArray[np.float32]]:
    """Yield the map of each tile, in order; tiles are read ahead while one is in the network."""
    spec = model.spec
    radius = smoothing_radius(spec.smoothing_sigma_um, spec.map_mpp)

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
