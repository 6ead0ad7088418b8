"""Points of a file as two arrays, for tests that look at nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segmitos.io.points.read import read_annotations


def read_points(path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mitoses and hard negatives, (n, 2) and (m, 2)."""
    found = read_annotations(path, **options)
    return found.of("mitosis"), found.of("non-mitosis")
