"""Patches round points for the verifier: read, moved, stained and blurred a batch at a time.

The same changes as `augment` makes to single crops, but on tensors: at 80 px a patch, Pillow would
take as long as the network. Part of the patches gets a border that is not there, mirrored or gray
as at the edge of an image: else only crops cut round a mitosis would have one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segmitos.detection.patches import OUTSIDE, patch_corners
from segmitos.detection.stain import Stain, stain_affine
from segmitos.io.files import jpeg_copy
from segmitos.training.augment import HED, HED_INVERSE, reflected
from segmitos.training.networks.verifier import PATCH_PX

_ZOOM_RANGE = (0.8, 1.32)
_MATCHED_FRACTION, _TRANSFERRED_FRACTION = 0.55, 0.30
_FALSE_BORDER_FRACTION, _GRAY_BORDER_FRACTION = 0.3, 0.3
_BLUR_FRACTION, _SHARPEN_FRACTION, _JPEG_FRACTION = 0.3, 0.35, 0.3


def read_patch(
    image: NDArray[np.uint8],
    x: float,
    y: float,
    side: int,
    bounds: tuple[int, int, int, int] | None = None,
    gray: bool = True,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read a square round a point; beyond the image it is gray, or its mirror image.

    Args:
        image: RGB (h, w, 3) uint8.
        x: of the middle, px.
        y: of the middle, px.
        side: of the square, px.
        bounds: left, top, right, bottom where the image is taken to end; None: where it does.
        gray: False mirrors.

    Returns:
        The patch (side, side, 3), and the position of its first pixel.
    """
    left, top = patch_corners(np.array([x, y]), side).tolist()
    height, width = image.shape[:2]
    x0, y0, x1, y1 = bounds or (0, 0, width, height)
    if left >= x0 and top >= y0 and left + side <= x1 and top + side <= y1:
        return image[top : top + side, left : left + side], (left, top)
    rows, columns = np.arange(top, top + side), np.arange(left, left + side)
    down, across = reflected(rows - y0, y1 - y0) + y0, reflected(columns - x0, x1 - x0) + x0
    patch = image[down[:, None], across[None]]
    if gray:
        patch[(rows < y0) | (rows >= y1)] = OUTSIDE
        patch[:, (columns < x0) | (columns >= x1)] = OUTSIDE
    return patch, (left, top)


def augmented_patches(
    images: Sequence[NDArray[np.uint8]],
    stains: Sequence[Stain | None],
    centers_xy: NDArray[np.float64],
    matrices: NDArray[np.float32],
    pool: Sequence[Stain],
    target: Stain | None,
    rng: np.random.Generator,
    side_px: int = PATCH_PX,
    false_borders: bool = True,
) -> Tensor:
    """Cut, turn, zoom, stain and blur one patch for each point.

    Args:
        images: at 0.25 um/px, one for each point.
        stains: of their slides.
        centers_xy: (n, 2), the middles of the patches.
        matrices: (n, 2, 2) of `draw_transforms`.
        pool: stains to move towards.
        target: the stain that detection matches slides to.
        rng: drawn from in a fixed order.
        side_px: of a patch.
        false_borders: whether part of the patches gets a border that is not there.

    Returns:
        (n, 3, side_px, side_px) float32 on the 0..255 scale, channels last.
    """
    side = read_side(side_px)
    read = np.empty((len(images), side, side, 3), np.uint8)
    middles = np.empty((len(images), 2))
    for index, (image, (x, y)) in enumerate(zip(images, centers_xy, strict=True)):
        bounds = None
        if false_borders:
            bounds = draw_border(image.shape[1], image.shape[0], x, y, rng)
        read[index], (left, top) = read_patch(image, x, y, side, bounds, draw_gray(rng))
        middles[index] = x - left, y - top
    pixels = torch.from_numpy(read).permute(0, 3, 1, 2).float()
    pixels = changed_patches(pixels, middles, matrices, stains, pool, target, rng, side_px)
    compressed = pixels.round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    for index, quality in draw_compression(len(images), rng):
        compressed[index] = jpeg_copy(compressed[index], quality)
    return torch.from_numpy(compressed).permute(0, 3, 1, 2).float()


def read_side(side_px: int) -> int:
    """Return the side that a patch is read at: whatever the angle and zoom, and a pixel more."""
    return 2 * math.ceil(side_px / math.sqrt(2) / _ZOOM_RANGE[0] + 1)


def changed_patches(
    pixels: Tensor,
    middles: NDArray[np.float64],
    matrices: NDArray[np.float32],
    stains: Sequence[Stain | None],
    pool: Sequence[Stain],
    target: Stain | None,
    rng: np.random.Generator,
    side_px: int = PATCH_PX,
) -> Tensor:
    """Turn, zoom, stain and blur patches, on the device that they are on.

    Args:
        pixels: (n, 3, side, side) float32 on the 0..255 scale, `read_side` wide.
        middles: (n, 2), x and y of the patches' middles there.
        matrices: (n, 2, 2) of `draw_transforms`.
        stains: of their slides.
        pool: stains to move towards.
        target: the stain that detection matches slides to.
        rng: drawn from in a fixed order.
        side_px: of a patch.

    Returns:
        (n, 3, side_px, side_px) float32 on the 0..255 scale.
    """
    pixels = _warp(pixels, middles, matrices, side_px)
    pixels = _restain(pixels, stains, pool, target, rng)
    return _refocus(_relight(pixels, rng), rng)


def draw_compression(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw which of some patches are compressed, and the JPEG quality of each."""
    chosen = np.flatnonzero(rng.random(count) < _JPEG_FRACTION).tolist()
    return [(index, int(rng.integers(40, 91))) for index in chosen]


def draw_gray(rng: np.random.Generator) -> bool:
    """Draw whether what lies beyond an image's border is gray, not its mirror image."""
    return bool(rng.random() < _GRAY_BORDER_FRACTION)


def draw_border(
    width: int, height: int, x: float, y: float, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Return bounds that end an image 14 to 44 px beside a point, or None."""
    if rng.random() >= _FALSE_BORDER_FRACTION:
        return None
    bounds = [0, 0, width, height]
    for axis, place in enumerate((x, y)):
        if rng.random() < 0.6:
            distance = int(rng.integers(14, 44))
            if rng.random() < 0.5:
                bounds[axis] = max(0, min(int(place) - distance, bounds[axis + 2] - 60))
            else:
                bounds[axis + 2] = min(bounds[axis + 2], max(int(place) + distance, 60))
    return bounds[0], bounds[1], bounds[2], bounds[3]


def draw_transforms(
    count: int, rng: np.random.Generator, right_angles: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Draw (n, 2, 2) matrices from offsets in a patch to offsets in its image.

    Those marked in `right_angles` (n,) are turned by multiples of 90 degrees: their images are no
    larger than the patch.
    """
    angle = rng.uniform(0, 2 * np.pi, count)
    if right_angles is not None:
        angle = np.where(right_angles, np.round(angle / (np.pi / 2)) * np.pi / 2, angle)
    zoom = 1 / rng.uniform(*_ZOOM_RANGE, count)
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    rows = [np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)]
    matrices = np.stack(rows, axis=1)
    matrices[rng.random(count) < 0.5, :, 0] *= -1
    return matrices.astype(np.float32)


def _warp(
    pixels: Tensor, middles: NDArray[np.float64], matrices: NDArray[np.float32], side_px: int
) -> Tensor:
    offsets = torch.arange(side_px, dtype=torch.float32, device=pixels.device) - (side_px - 1) / 2
    down, across = torch.meshgrid(offsets, offsets, indexing="ij")
    grid = torch.einsum("hwj,bij->bhwi", torch.stack([across, down], -1), _beside(matrices, pixels))
    grid = grid + _beside(middles, pixels)[:, None, None]
    grid = (grid + 0.5) * 2 / pixels.shape[-1] - 1
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _restain(
    pixels: Tensor,
    stains: Sequence[Stain | None],
    pool: Sequence[Stain],
    target: Stain | None,
    rng: np.random.Generator,
) -> Tensor:
    """Match most to the target, move some towards another slide's stain, and jitter all."""
    matrices = np.empty((len(stains), 3, 3), np.float32)
    offsets = np.empty((len(stains), 3), np.float32)
    for index, stain in enumerate(stains):
        choice = rng.random()
        gain, offset = np.ones(3), np.zeros(3)
        if stain is not None and target is not None and choice < _MATCHED_FRACTION:
            gain, offset = stain_affine(stain, target)
        elif stain is not None and pool and choice < _MATCHED_FRACTION + _TRANSFERRED_FRACTION:
            gain, offset = stain_affine(stain, pool[int(rng.integers(len(pool)))])
            fraction = rng.uniform(0.3, 1.0)
            gain, offset = 1 + fraction * (gain - 1), fraction * offset
        gains = 1 + rng.normal(0, 0.1, 3).clip(-0.35, 0.35)
        shifts = rng.normal(0, 0.05, 3).clip(-0.15, 0.15)
        jitter = HED_INVERSE @ np.diag(gains) @ HED
        matrices[index] = np.diag(gain) @ jitter
        offsets[index] = offset @ jitter + shifts @ HED * 0.5
    density = -torch.log((pixels + 1) / 256)
    density = torch.einsum("bchw,bcd->bdhw", density, _beside(matrices, pixels))
    density = density + _beside(offsets, pixels)[:, :, None, None]
    return (torch.exp(-density.clamp(min=0)) * 256 - 1).clamp(0, 255)


def _relight(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    def drawn(low: float, high: float) -> Tensor:
        return _beside(rng.uniform(low, high, len(pixels)), pixels)[:, None, None, None]

    contrast, shift = drawn(0.88, 1.12), drawn(-0.12, 0.12) * 100
    gamma = torch.exp(drawn(-0.12, 0.12) * 1.5)
    levels = (pixels / 255).clamp(min=1e-4) ** gamma * 255
    return ((levels - 128) * contrast + 128 + shift).clamp(0, 255)


def _refocus(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur some by a Gaussian, sharpen others by an unsharp mask."""
    choice = rng.random(len(pixels))
    sigma = _beside(rng.uniform(0.4, 1.3, len(pixels)), pixels)
    amount = np.where(choice < _BLUR_FRACTION, -1.0, rng.uniform(0.3, 1.5, len(pixels)))
    chosen = torch.from_numpy(np.nonzero(choice < _BLUR_FRACTION + _SHARPEN_FRACTION)[0])
    if not len(chosen):
        return pixels
    chosen = chosen.to(pixels.device)
    steps = torch.arange(-3, 4, dtype=torch.float32, device=pixels.device)
    kernel = torch.exp(-0.5 * (steps[None] / sigma[chosen, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    some = pixels[chosen]
    flat = some.reshape(1, -1, *some.shape[2:])
    flat = F.pad(flat, (3, 3, 3, 3), mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=len(kernel))
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    by = _beside(amount, pixels)[chosen, None, None, None]
    result = pixels.clone()
    result[chosen] = (some + by * (some - flat.reshape(some.shape))).clamp(0, 255)
    return result


def _beside(values: NDArray[np.floating], pixels: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(pixels.device)
