"""Augmented patches made on a device, a batch at a time, from images that lie in its memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn import functional as F

from experiments.laboratories.data import TARGET, LabImage
from segmitos.detection.patches import OUTSIDE, patch_corners
from segmitos.detection.stain import Stain
from segmitos.training.networks.verifier import PATCH_PX
from segmitos.training.patches import (
    changed_patches,
    draw_border,
    draw_compression,
    draw_gray,
    draw_transforms,
    read_side,
)

_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


class PatchReader:
    """Images in a device's memory, from which augmented patches are read."""

    def __init__(self, images: Sequence[LabImage], device: str) -> None:
        pixels = [image.source.image.reshape(-1, 3) for image in images]
        self._pixels = torch.from_numpy(np.concatenate(pixels)).to(device)
        self._begins = np.cumsum([0, *(len(some) for some in pixels[:-1])])
        self._shapes = np.array([image.source.image.shape[:2] for image in images])
        self._stains = [image.source.stain for image in images]

    def augmented(
        self, points: NDArray[np.float64], stains: Sequence[Stain], rng: np.random.Generator
    ) -> Tensor:
        """Return patches (n, 3, 80, 80) of points (n, 3) as `augmented_patches` makes them."""
        indices = points[:, 0].astype(int)
        matrices = draw_transforms(len(points), rng)
        pixels, middles = self._read(indices, points[:, 1:], read_side(PATCH_PX), rng)
        own = [self._stains[index] for index in indices]
        pixels = changed_patches(pixels, middles, matrices, own, stains, TARGET, rng).round()
        drawn = draw_compression(len(points), rng)
        if drawn:
            chosen = torch.tensor([index for index, _ in drawn], device=pixels.device)
            pixels[chosen] = compressed(pixels[chosen], [quality for _, quality in drawn])
        return pixels

    def _read(
        self,
        indices: NDArray[np.int64],
        centers_xy: NDArray[np.float64],
        side: int,
        rng: np.random.Generator,
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Read squares as `read_patch` does; return them and their middles in them."""
        device = self._pixels.device
        corners = patch_corners(centers_xy, side)
        bounds, gray = np.empty((len(indices), 4), int), np.empty(len(indices), bool)
        for row, (index, (x, y)) in enumerate(zip(indices, centers_xy, strict=True)):
            height, width = self._shapes[index].tolist()
            bounds[row] = draw_border(width, height, x, y, rng) or (0, 0, width, height)
            gray[row] = draw_gray(rng)
        steps = torch.arange(side, device=device)
        places, beyond = [], []
        for axis in (0, 1):
            begin, end, corner = (
                torch.from_numpy(values)[:, None].to(device)
                for values in (bounds[:, axis], bounds[:, axis + 2], corners[:, axis])
            )
            place, length = corner + steps, end - begin
            beyond.append((place < begin) | (place >= end))
            folded = torch.remainder(place - begin, 2 * length)
            places.append(torch.minimum(folded, 2 * length - 1 - folded) + begin)
        begins, widths = (
            torch.from_numpy(values).to(device)[:, None, None]
            for values in (self._begins[indices], self._shapes[indices, 1])
        )
        pixels = self._pixels[begins + places[1][:, :, None] * widths + places[0][:, None]]
        outside = beyond[1][:, :, None] | beyond[0][:, None]
        pixels[outside & torch.from_numpy(gray).to(device)[:, None, None]] = OUTSIDE
        return pixels.permute(0, 3, 1, 2).float(), centers_xy - corners


def compressed(pixels: Tensor, qualities: Sequence[int]) -> Tensor:
    """Return what JPEG with chroma at half the resolution leaves of patches.

    Args:
        pixels: (n, 3, side, side) on the 0..255 scale, sides multiples of 16.
        qualities: of the n patches, 1 to 100.
    """
    tables = torch.tensor([_tables(quality) for quality in qualities]).to(pixels)
    ycc = torch.einsum("dc,nchw->ndhw", _YCC.to(pixels.device), pixels)
    luma = _quantized(ycc[:, :1] - 128, tables[:, 0]) + 128
    chroma = _quantized(F.avg_pool2d(ycc[:, 1:], 2), tables[:, 1])
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    back = torch.linalg.inv(_YCC).to(pixels.device)
    result = torch.einsum("dc,nchw->ndhw", back, torch.cat([luma, chroma], 1))
    return result.round().clamp(0, 255)


@lru_cache
def _tables(quality: int) -> list[list[int]]:
    """Return the JPEG library's tables (2, 64) of luma and chroma."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    tables = JpegImageFile(io.BytesIO(buffer.getvalue())).quantization
    return [tables[0], tables[1]]


def _quantized(planes: Tensor, table: Tensor) -> Tensor:
    """Round the cosine coefficients of blocks of 8 x 8 px to multiples of tables (n, 64)."""
    steps = torch.arange(8, device=planes.device, dtype=torch.float32)
    cosine = torch.cos((2 * steps + 1) * steps[:, None] * torch.pi / 16) / 2
    cosine[0] /= 2**0.5
    count, channels, height, width = planes.shape
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    unit = table.reshape(count, 1, 1, 1, 8, 8)
    rounded = (cosine @ blocks @ cosine.T / unit).round() * unit
    return (cosine.T @ rounded @ cosine).transpose(3, 4).reshape(planes.shape)
