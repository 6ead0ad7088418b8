"""A tiny synthetic data set: pale tissue, dark round mitoses, paler look-alikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segmitos.io.datasets import Case


def draw_field(rng: np.random.Generator, size: int = 192, mitoses: int = 3, others: int = 3):
    """Return an RGB field, its mitoses (n, 2) and its look-alikes (m, 2)."""
    image = np.full((size, size, 3), (225, 180, 215), float)
    image += rng.normal(0, 6, image.shape)
    points = rng.uniform(20, size - 20, (mitoses + others, 2))
    rows, columns = np.mgrid[:size, :size]
    for index, (x, y) in enumerate(points):
        inside = np.hypot(columns - x, rows - y) <= 11
        image[inside] = (60, 20, 90) if index < mitoses else (150, 110, 190)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    return pixels, points[:mitoses], points[mitoses:]


def write_cases(
    folder: Path, slides: int = 3, fields: int = 2, seed: int = 0, size: int = 192
) -> list[Case]:
    """Write fields as PNG and return their cases."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cases = []
    for slide in range(slides):
        for field in range(fields):
            pixels, mitoses, others = draw_field(rng, size)
            path = folder / f"S{slide}_{field}.png"
            Image.fromarray(pixels).save(path)
            cases.append(
                Case(
                    name=path.stem,
                    image=path,
                    mitoses_xy=mitoses,
                    hard_negatives_xy=others,
                    mpp=0.25,
                    slide=f"S{slide}",
                    patient=f"S{slide}",
                    dataset="synthetic",
                )
            )
    return cases
